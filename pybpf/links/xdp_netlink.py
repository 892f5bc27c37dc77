"""XDP through netlink, as ``ip link set dev eth0 xdp`` does it: for kernels before Linux 5.9, and to see what is there.

Needs pyroute2 (``pip install 'pybpf[net]'``). A program that is attached so stays until its `NetlinkXDP` is closed,
also when the process dies.

Source: net/core/dev.c, dev_change_xdp_fd; net/core/rtnetlink.c, do_setlink_xdp.
"""

from __future__ import annotations

import errno
from functools import cache

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import BPFError
from pybpf.links.base import Attachment
from pybpf.links.netlink import Talk, nested_class, pyroute2_module
from pybpf.links.refusal import attaching
from pybpf.links.targets import duplicate, interface_index, interface_name
from pybpf.syscall import netlink_numbers as n

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.links.base import Attachable
    from pybpf.syscall import FD

_MODES = {
    n.XDP_ATTACHED_NONE: "",
    n.XDP_ATTACHED_DRV: "native",
    n.XDP_ATTACHED_SKB: "generic",
    n.XDP_ATTACHED_HW: "offload",
    n.XDP_ATTACHED_MULTI: "multi",
}
_HINTS = {
    errno.EBUSY: "The interface has an XDP program: with replace= another takes its place, unless a link holds it",
    errno.EEXIST: "The interface has an XDP program, in another mode or not the expected one",
    errno.EINVAL: "The interface does not take this program: its driver, or the size of its packets, does not allow it",
    errno.EOPNOTSUPP: "The driver cannot run XDP programs in this mode; generic mode works on every interface",
}


class XDPStatus:
    """The XDP programs of an interface, by their ids; 0 where there is none.

    Attributes:
        mode: "native", "generic", "offload", "multi" when several modes have one, or "" for none.
        prog_id: the program, when there is one only.
        generic_id, native_id, offload_id: the program of each mode (Linux 4.20).
    """

    __slots__ = ("generic_id", "mode", "native_id", "offload_id", "prog_id")

    def __init__(self, nested: Any) -> None:
        def get(name: str) -> int:
            return (nested.get_attr(f"IFLA_XDP_{name}") if nested is not None else None) or 0

        self.mode = _MODES.get(get("ATTACHED"), "")
        self.prog_id = get("PROG_ID")
        self.generic_id = get("SKB_PROG_ID")
        self.native_id = get("DRV_PROG_ID")
        self.offload_id = get("HW_PROG_ID")

    def in_mode(self, flags: int) -> int:
        """The id of the program of a mode, given as XDP_FLAGS_; of the only one when none is given."""
        ids = {
            c.XDP_FLAGS_SKB_MODE: self.generic_id,
            c.XDP_FLAGS_DRV_MODE: self.native_id,
            c.XDP_FLAGS_HW_MODE: self.offload_id,
        }
        return ids.get(flags & c.XDP_FLAGS_MODES, 0) or self.prog_id

    def __repr__(self) -> str:
        return f"<XDPStatus {self.mode} prog={self.prog_id}>" if self.mode else "<XDPStatus none>"


def xdp_status(interface: str | int) -> XDPStatus:
    """What XDP programs an interface has, attached by a link or by netlink. Since Linux 4.8; needs pyroute2.

    Raises:
        BPFNotFoundError: there is no such interface.
        ModuleNotFoundError: pyroute2 is not installed.
    """
    index = interface_index(interface)
    with Talk(_messages()) as talk:
        return _ask_status(talk, index)


def _ask_status(talk: Talk, index: int) -> XDPStatus:
    (message,) = talk.ask("RTM_GETLINK", n.RTM_GETLINK, {"index": index}, [], f"asking {interface_name(index)}")
    return XDPStatus(message.get_attr("IFLA_XDP"))


class NetlinkXDP(Attachment):
    """An XDP program attached through netlink; `close()` removes it, unless another has taken its place."""

    __slots__ = ("_place",)

    def __init__(self, target: str, place: _Place) -> None:
        super().__init__("xdp", target, place.remove, (place,))
        self._place = place

    def status(self) -> XDPStatus:
        """The interface's XDP programs now."""
        self._check_open()
        return self._place.status()

    def update(self, program: Attachable, *, old: Attachable | None = None) -> None:
        """Puts another program in the place of this one, without a gap.

        Args:
            program: of type xdp.
            old: when given, the kernel checks that this is the program attached now (Linux 5.7).

        Raises:
            BPFExistsError: another program is attached than `old`.
        """
        self._check_open()
        self._place.put(program, f"updating {self._words()} to {program.name!r}", old)


class _Place:
    """An interface and a mode, the program that was put there, and the talk to ask about it."""

    def __init__(self, index: int, flags: int) -> None:
        self._index = index
        self._flags = flags
        self._talk = Talk(_messages())
        self._program: FD | None = None
        self._id = 0

    def put(self, program: Attachable, what: str, old: Attachable | None, flags: int = 0) -> None:
        held = duplicate(program)
        try:
            number = int(syscall.prog_info(held).id)
            self._set(held.fileno(), what, flags, None if old is None else old.fileno())
        except BaseException:
            held.close()
            raise
        if self._program is not None:
            self._program.close()
        self._program, self._id = held, number

    def _set(self, fd: int, what: str, flags: int = 0, expected: int | None = None) -> None:
        """Sets the interface's program; -1 takes it away."""
        flags |= self._flags
        nested: list[tuple[str, Any]] = [("IFLA_XDP_FD", fd)]
        if expected is not None:
            flags |= c.XDP_FLAGS_REPLACE
            nested.append(("IFLA_XDP_EXPECTED_FD", expected))
        if flags:
            nested.append(("IFLA_XDP_FLAGS", flags))
        attributes = [("IFLA_XDP", {"attrs": nested})]
        self._talk.ask("RTM_SETLINK", n.RTM_SETLINK, {"index": self._index}, attributes, what, hints=_HINTS)

    def status(self) -> XDPStatus:
        return _ask_status(self._talk, self._index)

    def remove(self) -> None:
        if self._program is None:
            return
        what = f"removing the XDP program of {interface_name(self._index)}"
        try:
            self._set(-1, what, expected=self._program.fileno())
        except BPFError as error:
            if error.errno == errno.ENODEV or error.errno == errno.EEXIST:
                return  # the interface is gone, or the program is another by now
            if error.errno != errno.EINVAL:
                raise
            if self.status().in_mode(self._flags) == self._id:  # before Linux 5.7 the kernel compares nothing
                self._set(-1, what)

    def close(self) -> None:
        self._talk.close()
        if self._program is not None:
            self._program.close()


def attach_xdp_netlink(program: Attachable, interface: str | int, flags: int, replace: Attachable | None) -> NetlinkXDP:
    """What `pybpf.links.attach_xdp` does with ``netlink=True``. Since Linux 4.8.

    Args:
        flags: the mode, as XDP_FLAGS_.
        replace: the program that this one takes the place of (Linux 5.7).
    """
    place = _Place(interface_index(interface), flags)
    try:
        only_if_free = c.XDP_FLAGS_UPDATE_IF_NOEXIST if replace is None else 0
        place.put(program, attaching(program, f"interface {interface}"), replace, only_if_free)
    except BaseException:
        place.close()
        raise
    return NetlinkXDP(str(interface), place)


@cache
def _messages() -> Any:
    """pyroute2's message about an interface, whose XDP flags have the wrong size before pyroute2 0.9."""
    names = "UNSPEC FD ATTACHED FLAGS PROG_ID DRV_PROG_ID SKB_PROG_ID HW_PROG_ID EXPECTED_FD"
    formats = {"UNSPEC": "none", "FD": "int32", "ATTACHED": "uint8", "EXPECTED_FD": "int32"}
    nested = nested_class({f"IFLA_XDP_{name}": formats.get(name, "uint32") for name in names.split()})
    return type("xdp_ifinfmsg", (pyroute2_module("netlink.rtnl.ifinfmsg").ifinfmsg,), {"xdp": nested})
