"""tc: programs as classifiers of the traffic control, for kernels without tcx and for queues other than clsact.

Through netlink, with pyroute2 (``pip install 'pybpf[net]'``). A filter has no link object: it stays attached until its
`TcFilter` is closed, also when the process dies. tcx (`attach_tcx`, Linux 6.6) is the better way where it is there, and
takes this one by itself where it is not.

Source: net/sched/cls_bpf.c, net/sched/sch_ingress.c; tc-bpf(8).
"""

from __future__ import annotations

import errno
import struct
from functools import cache

from pybpf import syscall
from pybpf.errors import BPFError, BPFExistsError, kernel_error
from pybpf.links.base import Attachment
from pybpf.links.netlink import Talk, nested_class, pyroute2_module
from pybpf.links.refusal import attaching
from pybpf.links.targets import interface_index, interface_name
from pybpf.links.tcx import TCX, attach_type_of, side_of
from pybpf.syscall import netlink_numbers as n

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.links.base import Attachable

DIRECTIONS = {
    "ingress": n.TC_H_CLSACT & n.TC_H_MAJ_MASK | n.TC_H_MIN_INGRESS,
    "egress": n.TC_H_CLSACT & n.TC_H_MAJ_MASK | n.TC_H_MIN_EGRESS,
}
"""The two places of a clsact queue, as parents of filters."""

_CLSACT = {"parent": n.TC_H_CLSACT, "handle": n.TC_H_CLSACT & n.TC_H_MAJ_MASK}
_HINTS = {
    errno.EEXIST: "There is a filter of this handle and priority: replace=True takes its place",
    errno.EINVAL: "The interface has no such queue, or the program is not of type sched_cls",
    errno.ENOENT: "The interface has no such queue",
}
_GONE = (errno.ENOENT, errno.ENODEV, errno.EINVAL)
"""What the kernel says of a filter that is not there: it is gone, or its interface, or its queue."""


class TcFilterInfo:
    """What the kernel tells about one cls_bpf filter.

    Attributes:
        interface: the index of the interface.
        parent: the queue's class that it is at; `direction` says it in a word for clsact.
        handle, priority, protocol: with them it can be found again; the protocol is an ETH_P_ number.
        prog_id: the id of its program (Linux 4.13); 0 for a classic one.
        name: as whoever attached it named it.
        direct_action: the program's result is what becomes of the packet.
        class_id: where packets go otherwise.
    """

    __slots__ = (
        "class_id",
        "direct_action",
        "handle",
        "interface",
        "name",
        "parent",
        "priority",
        "prog_id",
        "protocol",
    )

    def __init__(self, message: Any) -> None:
        options = message.get_attr("TCA_OPTIONS")
        self.interface: int = message["index"]
        self.parent: int = message["parent"]
        self.handle: int = message["handle"]
        self.priority: int = message["info"] >> 16
        self.protocol = _swapped(message["info"] & 0xFFFF)
        self.prog_id: int = options.get_attr("TCA_BPF_ID") or 0
        self.name: str = options.get_attr("TCA_BPF_NAME") or ""
        self.direct_action = bool((options.get_attr("TCA_BPF_FLAGS") or 0) & n.TCA_BPF_FLAG_ACT_DIRECT)
        self.class_id: int = options.get_attr("TCA_BPF_CLASSID") or 0

    @property
    def direction(self) -> str:
        """The side of a clsact queue, "ingress" or "egress"; empty elsewhere."""
        return next((word for word, parent in DIRECTIONS.items() if parent == self.parent), "")

    def __repr__(self) -> str:
        where = self.direction or hex(self.parent)
        return (
            f"<TcFilterInfo {self.name!r} {where} handle={self.handle:#x} priority={self.priority} prog={self.prog_id}>"
        )


class TcFilter(Attachment):
    """A program attached as a tc filter; `close()` removes the filter, unless another program has taken its place.

    Attributes:
        handle, priority: what the filter can be found by, as the kernel chose them.
    """

    __slots__ = ("_place",)

    def __init__(self, target: str, place: _Place) -> None:
        super().__init__("tc", target, place.remove, (place,))
        self._place = place

    @property
    def handle(self) -> int:
        return self._place.fields["handle"]

    @property
    def priority(self) -> int:
        return self._place.fields["info"] >> 16

    def filter_info(self) -> TcFilterInfo | None:
        """What the kernel has at this place now; None when the filter is gone."""
        self._check_open()
        return self._place.look()

    def update(self, program: Attachable, *, old: Attachable | None = None) -> None:
        """Puts another program in the filter's place, without a gap.

        Args:
            program: of type sched_cls.
            old: when given, this must be the program attached now. The kernel cannot check it in the same step.

        Raises:
            BPFPermissionError: the program attached is not `old`.
        """
        self._check_open()
        what = f"updating {self._words()} to {program.name!r}"
        if old is not None:
            found, wanted = self._place.look(), int(syscall.prog_info(old).id)
            if found is None or found.prog_id != wanted:
                raise kernel_error(errno.EPERM, "RTM_NEWTFILTER", what, "The attached program is not the expected one")
        self._place.put(program, what, n.NLM_F_CREATE | n.NLM_F_REPLACE)


class _Place:
    """Where a filter is: its keys, the id of the program that was put there, and the talk to ask about it."""

    def __init__(self, fields: dict[str, int], options: list[tuple[str, Any]]) -> None:
        self.fields = fields
        self._options = options
        self._talk = Talk(_messages())
        self._id = 0

    def put(self, program: Attachable, what: str, flags: int) -> None:
        number = int(syscall.prog_info(program).id)
        options = [("TCA_BPF_FD", program.fileno()), ("TCA_BPF_NAME", f"{program.name}:[{number}]"), *self._options]
        attributes = [("TCA_KIND", "bpf"), ("TCA_OPTIONS", {"attrs": options})]
        flags |= n.NLM_F_ECHO  # it says which handle and priority the kernel chose
        made = self._talk.ask(
            "RTM_NEWTFILTER", n.RTM_NEWTFILTER, self.fields, attributes, what, flags=flags, hints=_HINTS
        )
        if made:
            self.fields.update(handle=made[0]["handle"], info=made[0]["info"])
        self._id = number

    def look(self) -> TcFilterInfo | None:
        found = self._ask("RTM_GETTFILTER", n.RTM_GETTFILTER)
        return TcFilterInfo(found[0]) if found else None

    def remove(self) -> None:
        found = self.look()
        if found is not None and found.prog_id in (0, self._id):
            self._ask("RTM_DELTFILTER", n.RTM_DELTFILTER)

    def _ask(self, command: str, kind: int) -> list[Any]:
        """The answer; nothing when there is no such filter."""
        try:
            return self._talk.ask(command, kind, self.fields, [("TCA_KIND", "bpf")], "a tc filter")
        except BPFError as error:
            if error.errno in _GONE:
                return []
            raise

    def close(self) -> None:
        self._talk.close()


def attach_tc(
    program: Attachable,
    interface: str | int,
    direction: str = "",
    *,
    parent: int = 0,
    handle: int = 0,
    priority: int = 0,
    protocol: int = n.ETH_P_ALL,
    replace: bool = False,
    direct_action: bool = True,
    class_id: int = 0,
) -> TcFilter:
    """Attaches a program as a cls_bpf filter of the traffic control. Since Linux 4.4; needs pyroute2.

    A clsact queue (Linux 4.5) is made where `direction` needs one. It stays when the filter goes, since others may use
    it by then; `remove_clsact` takes it away.

    Args:
        program: of type sched_cls.
        interface: name or index.
        direction: "ingress" or "egress"; default: what the program's section says (``tc/ingress``, ``tcx/egress``).
        parent: a class of another queue, 0x10000 for ``1:``, in the place of a direction.
        handle: the filter's number; 0 lets the kernel choose.
        priority: 1 to 65535, the lowest runs first; 0 lets the kernel choose.
        protocol: only packets of this ETH_P_ number.
        replace: take the place of the filter of this handle and priority, if there is one.
        direct_action: the program's result is what becomes of the packet (Linux 4.4).
        class_id: where matching packets go when it is not.

    Raises:
        BPFNotFoundError: there is no such interface.
        BPFExistsError: there is a filter of this handle and priority.
        BPFError: EINVAL, the interface has no such queue.
        ModuleNotFoundError: pyroute2 is not installed.
        ObjectError: neither the call nor the section gives a direction.
        ValueError: a number does not fit into its field, or there is no such direction.
    """
    if not 0 <= priority <= 0xFFFF:
        raise ValueError(f"a priority is 0 to 65535, not {priority}")
    if not 0 <= protocol <= 0xFFFF:
        raise ValueError(f"a protocol is 0 to 65535, not {protocol}")
    if parent and direction:
        raise ValueError("give one of direction and parent")
    word = "" if parent else side_of(attach_type_of(program, direction, TCX, "direction"))
    index = interface_index(interface)
    fields = {
        "index": index,
        "parent": parent or DIRECTIONS[word],
        "handle": handle,
        "info": priority << 16 | _swapped(protocol),
    }
    options = [("TCA_BPF_FLAGS", n.TCA_BPF_FLAG_ACT_DIRECT)] if direct_action else []
    if class_id:
        options.append(("TCA_BPF_CLASSID", class_id))
    target = f"{interface} {word or hex(parent)}"
    place = _Place(fields, options)
    made_queue = False
    try:
        made_queue = bool(word) and add_clsact(index)
        flags = n.NLM_F_CREATE | (n.NLM_F_REPLACE if replace else n.NLM_F_EXCL)
        place.put(program, attaching(program, f"tc {target}"), flags)
    except BaseException:
        place.close()
        if made_queue:
            remove_clsact(index)
        raise
    return TcFilter(target, place)


def add_clsact(interface: str | int) -> bool:
    """Gives an interface a clsact queue, which has places for filters at ingress and egress. Since Linux 4.5.

    Returns:
        False when it had one.

    Raises:
        BPFNotFoundError: there is no such interface.
        BPFExistsError: it has an ingress queue, which excludes a clsact one.
    """
    what = f"making a clsact queue on {interface_name(interface)}"
    flags = n.NLM_F_CREATE | n.NLM_F_EXCL
    try:
        _queue("RTM_NEWQDISC", n.RTM_NEWQDISC, interface, what, flags)
    except BPFExistsError:
        if has_clsact(interface):
            return False
        raise
    return True


def remove_clsact(interface: str | int) -> bool:
    """Takes the clsact queue away, with every filter in it. False when there is none."""
    try:
        _queue("RTM_DELQDISC", n.RTM_DELQDISC, interface, f"removing the clsact queue of {interface_name(interface)}")
    except BPFError as error:
        if error.errno in _GONE:
            return False
        raise
    return True


def has_clsact(interface: str | int) -> bool:
    """Whether an interface has a clsact queue."""
    index = interface_index(interface)
    with Talk(_messages()) as talk:
        queues = talk.ask("RTM_GETQDISC", n.RTM_GETQDISC, {"index": index}, [], "listing queues", flags=n.NLM_F_DUMP)
    return any(queue["index"] == index and queue.get_attr("TCA_KIND") == "clsact" for queue in queues)


def clear_tc(interface: str | int, direction: str) -> None:
    """Removes every filter at one side of an interface's clsact queue, whoever attached it.

    Raises:
        BPFError: EINVAL, the interface has no such queue.
        ValueError: there is no such direction.
    """
    fields = {"index": interface_index(interface), "parent": _parent_of(direction)}
    with Talk(_messages()) as talk:
        talk.ask("RTM_DELTFILTER", n.RTM_DELTFILTER, fields, [], f"clearing {direction} of {interface_name(interface)}")


def tc_filters(interface: str | int, direction: str = "", *, parent: int = 0) -> list[TcFilterInfo]:
    """The cls_bpf filters of an interface, in the order in which they run.

    Args:
        direction: "ingress" or "egress" of the clsact queue; default: both.
        parent: a class of another queue, in the place of a direction.

    Raises:
        ValueError: there is no such direction.
    """
    index = interface_index(interface)
    parents = [parent] if parent else [_parent_of(direction)] if direction else list(DIRECTIONS.values())
    found = []
    with Talk(_messages()) as talk:
        for place in parents:
            fields = {"index": index, "parent": place}
            try:
                messages = talk.ask(
                    "RTM_GETTFILTER", n.RTM_GETTFILTER, fields, [], "listing filters", flags=n.NLM_F_DUMP
                )
            except BPFError as error:
                if error.errno not in _GONE:
                    raise
                continue
            # each filter is preceded by a message about its table, which has no handle
            found += [TcFilterInfo(m) for m in messages if m.get_attr("TCA_KIND") == "bpf" and m["handle"]]
    return found


def _queue(command: str, kind: int, interface: str | int, what: str, flags: int = 0) -> None:
    fields = {"index": interface_index(interface), **_CLSACT}
    with Talk(_messages()) as talk:
        talk.ask(command, kind, fields, [("TCA_KIND", "clsact")], what, flags=flags)


def _parent_of(direction: str) -> int:
    if direction not in DIRECTIONS:
        raise ValueError(f"direction is one of {', '.join(DIRECTIONS)}, not {direction!r}")
    return DIRECTIONS[direction]


def _swapped(protocol: int) -> int:
    """A protocol's number in the byte order of the net, as the kernel wants it inside of a number of ours."""
    return int(struct.unpack("=H", struct.pack(">H", protocol))[0])


@cache
def _messages() -> Any:
    """pyroute2's tc message, with all that Linux tells about cls_bpf filters: its own does not know their ids."""
    base = pyroute2_module("netlink.rtnl.tcmsg").tcmsg
    names = "UNSPEC ACT POLICE CLASSID OPS_LEN OPS FD NAME FLAGS FLAGS_GEN TAG ID"
    formats = {"UNSPEC": "none", "ACT": "hex", "POLICE": "hex", "OPS": "hex", "NAME": "asciiz", "TAG": "hex"}
    options = nested_class({f"TCA_BPF_{name}": formats.get(name, "uint32") for name in names.split()})

    def get_options(message: Any, *arguments: Any, **named: Any) -> Any:
        if message.get_attr("TCA_KIND") == "bpf":
            return options
        return base.get_options(message, *arguments, **named)

    return type("bpf_tcmsg", (base,), {"get_options": staticmethod(get_options)})
