"""What an attachment is in Python: `Link`, its kinds, and `Links`, a group of them.

Rules:

* A link is one attachment. It detaches when its last holder lets go: `close()` drops this process's hold, a pin
  (`pin()`) is another holder.
* `close()` may be called twice, `with` calls it, and a link that is forgotten warns (`ResourceWarning`) and detaches.
* Some attachments have no link object in the kernel (a perf event before Linux 5.15, a socket filter). They are
  `Link` as well: closing undoes them, and what needs a link object raises `NotSupportedError`.
* A child made by fork() holds the attachment too. Its `close()` only lets go, so that a child that ends does not take
  away what its parent has attached; `detach()` ends the attachment in any process.
"""

from __future__ import annotations

import errno
import os
from _warnings import warn  # the built-in part of `warnings`, see pybpf.syscall.fd

from pybpf import syscall
from pybpf.constants import BPF_F_REPLACE, BPF_LINK_TYPE_ITER, BPF_LINK_TYPE_STRUCT_OPS
from pybpf.errors import BPFError, ClosedError, NotSupportedError, ObjectError
from pybpf.links.refusal import refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Protocol, Self

    from pybpf.abi import LinkType
    from pybpf.btf.reader import BTF
    from pybpf.maps.loaded import LoadedMaps
    from pybpf.maps.struct_ops import StructOpsMap
    from pybpf.spec import ProgramSpec
    from pybpf.syscall import FD, LinkInfo
    from pybpf.tracefs import ProbeEvent

    class Closable(Protocol):
        def close(self) -> None: ...

    class Attachable(Protocol):
        """What attaching needs of a program."""

        def fileno(self) -> int: ...
        @property
        def name(self) -> str: ...
        @property
        def type_number(self) -> int: ...
        @property
        def attach_type_number(self) -> int: ...
        @property
        def spec(self) -> ProgramSpec | None: ...
        @property
        def btf(self) -> BTF | None: ...
        @property
        def maps(self) -> LoadedMaps | None: ...


class Link:
    """One attachment of a program to a hook. Made by the attach functions; a context manager.

    Attributes:
        kind: the way of attaching, for example ``"tracepoint"``.
        target: what the program is attached to, for example ``"sched/sched_process_exec"``.
    """

    __slots__ = ("__weakref__", "_fd", "_id", "_open", "_pid", "_pin_path", "kind", "target")

    def __init__(self, fd: FD | None, kind: str, target: str) -> None:
        """Takes ownership of the descriptor of a link; None for an attachment without a link object."""
        self._open = True
        self._fd = fd
        self._id = 0
        self._pid = os.getpid()
        self._pin_path = ""
        self.kind = kind
        self.target = target

    # --- getting one -----------------------------------------------------------------------------------------------

    @classmethod
    def open_pinned(cls, path: str | os.PathLike[str]) -> Link:
        """The link that is pinned at a path of a BPF file system. Since Linux 5.7.

        Raises:
            BPFNotFoundError: nothing is there.
            ObjectError: what is pinned there is no link.
        """
        text = os.fspath(path)
        fd = syscall.obj_get(text)
        try:
            if not _is_link(fd):
                raise ObjectError(f"{text}: what is pinned there is not a link")
            return _adopt(fd, text)
        except BaseException:
            fd.close()
            raise

    @classmethod
    def from_id(cls, link_id: int) -> Link:
        """The link of this id. Needs CAP_SYS_ADMIN; since Linux 5.8.

        Raises:
            BPFNotFoundError: there is no such link.
        """
        fd = syscall.link_get_fd_by_id(link_id)
        try:
            return _adopt(fd, "")
        except BaseException:
            fd.close()
            raise

    # --- using it --------------------------------------------------------------------------------------------------

    @property
    def fd(self) -> FD:
        """The descriptor of the link object.

        Raises:
            ClosedError: the link is closed.
            NotSupportedError: the kernel has no link object for this attachment.
        """
        self._check_open()
        if self._fd is None:
            raise NotSupportedError(errno.EOPNOTSUPP, "bpf", f"{self._words()} has no link object in this kernel")
        return self._fd

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError(f"{self._words()} is closed")

    def fileno(self) -> int:
        return self.fd.fileno()

    @property
    def closed(self) -> bool:
        return not self._open

    @property
    def id(self) -> int:
        """The kernel's id of the link; 0 when there is no link object. Since Linux 5.8."""
        if not self._id and self._fd is not None:
            self._id = int(syscall.link_info(self.fd).id)
        return self._id

    @property
    def type(self) -> LinkType:
        """The kernel's type of the link."""
        from pybpf.abi import LinkType

        return LinkType(self.info().type)

    def info(self, *, arrays: bool = False) -> LinkInfo:
        """What the kernel tells about the link; `pybpf.syscall.link_info` lists the fields. Since Linux 5.8.

        Args:
            arrays: fetch the addresses, offsets and cookies of links with many targets (Linux 6.6 and later).
        """
        return syscall.link_info(self.fd, arrays=arrays)

    def update(self, program: Attachable, *, old: Attachable | None = None) -> None:
        """Puts another program of the same type in the place of the attached one, without a gap.

        For cgroup, XDP, tcx, netkit, network namespace, sockmap and iterator links; not for netfilter, perf event and
        tracing links.

        Args:
            program: the new program.
            old: when given, the kernel checks that this is the program attached now.

        Raises:
            BPFError: EINVAL or EOPNOTSUPP, this type of link cannot be updated; EPERM, the program attached is not
                `old`.
        """
        fd = self.fd
        try:
            if old is None:
                syscall.link_update(fd, program)
            else:
                syscall.link_update(fd, program, flags=BPF_F_REPLACE, old_prog_fd=old)
        except BPFError as error:
            hints = {
                errno.EINVAL: f"{self.kind} links may not be updatable, or the program is of another type",
                errno.EOPNOTSUPP: f"{self.kind} links cannot be updated: attach the new program, then close this link",
                errno.EPERM: "The attached program is not the expected one",
            }
            raise refused(error, f"updating {self._words()} to {program.name!r}", hints) from None

    def pin(self, path: str | os.PathLike[str]) -> None:
        """Makes the link a file in a BPF file system, which keeps it attached after `close()`. Since Linux 5.7."""
        text, fd = os.fspath(path), self.fd
        try:
            syscall.obj_pin(text, fd)
        except BPFError as error:
            hints = {
                errno.EPERM: "Pins live in a BPF file system (mount -t bpf bpf /sys/fs/bpf), without dots in names"
            }
            raise refused(error, f"pinning {self._words()} at {text}", hints) from None
        self._pin_path = text

    def unpin(self) -> None:
        """Removes the pin that `pin()` made, or that `open_pinned()` opened. Nothing happens without one."""
        path, self._pin_path = self._pin_path, ""
        if path:
            os.unlink(path)

    @property
    def pin_path(self) -> str:
        """Where this link is pinned, as far as this object knows; may be empty."""
        return self._pin_path

    # --- letting go ------------------------------------------------------------------------------------------------

    def detach(self) -> None:
        """Ends the attachment now: forces the program off its hook where the kernel can, removes the pin, and closes.

        The kernel can for cgroup, network namespace, XDP, tcx, netkit and sockmap links (BPF_LINK_DETACH, Linux 5.9).
        Links of the other types stay attached while another process or another pin holds them.
        """
        if not self._open:
            return
        self._pid = os.getpid()
        try:
            self._force()
            self.unpin()
        finally:
            self.close()

    def _force(self) -> None:
        if self._fd is None:
            return
        try:
            syscall.link_detach(self._fd)
        except NotSupportedError:
            return
        except BPFError as error:
            if error.errno != errno.EINVAL:  # kernels before 5.9 do not know the command
                raise refused(error, f"detaching {self._words()}") from None

    def close(self) -> None:
        """Drops the hold on the attachment: it ends, unless it is pinned or held elsewhere. May be called twice."""
        if self._open:
            self._open = False
            self._release()

    @property
    def _is_inherited(self) -> bool:
        """Whether this is a child process, made by fork() after the attachment."""
        return self._pid != os.getpid()

    def _release(self) -> None:
        if self._fd is not None:
            self._fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            if not self._is_inherited:
                warn(f"unclosed link: {self._words()}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def _words(self) -> str:
        return f"{self.kind} {self.target}".rstrip()

    def __repr__(self) -> str:
        if not self._open:
            return f"<Link {self._words()} closed>"
        try:
            number = f" id={self.id}" if self._fd is not None else ""
        except BPFError:
            number = ""
        return f"<Link {self._words()}{number}>"


class PerfLink(Link):
    """A program on a perf event: a link of type perf_event (Linux 5.15), or a program set on the event by ioctl.

    Closing disables the event, so that the program stops at once also where the kernel frees links a moment later. A
    link that was pinned by this object stays enabled.
    """

    __slots__ = ("_disable", "_event", "_perf")

    def __init__(self, fd: FD | None, perf: FD, kind: str, target: str, event: ProbeEvent | None = None) -> None:
        """Takes ownership of the link, of the perf event, and of the probe event that it uses."""
        super().__init__(fd, kind, target)
        self._perf = perf
        self._event = event
        self._disable = syscall.perf_disable  # while Python shuts down, nothing can be imported any more

    @property
    def perf_fd(self) -> FD:
        """The descriptor of the perf event.

        Raises:
            ClosedError: the link is closed.
        """
        self._check_open()
        return self._perf

    def _release(self) -> None:
        try:
            # The garbage collector finalizes what refers to each other in any order.
            if not self._pin_path and not self._is_inherited and not self._perf.closed:
                self._disable(self._perf)
        finally:
            self._perf.close()
            super()._release()
            if self._event is not None and not self._is_inherited:
                self._event.remove()


class Attachment(Link):
    """An attachment that the kernel keeps without a link object: closing calls what undoes it.

    It does not end with this process by itself: whoever forgets it leaves the program attached.
    """

    __slots__ = ("_held", "_undo")

    def __init__(self, kind: str, target: str, undo: Callable[[], None], held: tuple[Closable, ...] = ()) -> None:
        """Takes ownership of what `undo` needs: descriptors, mostly."""
        super().__init__(None, kind, target)
        self._undo = undo
        self._held = held

    def _release(self) -> None:
        try:
            if not self._is_inherited:
                self._undo()
        finally:
            for thing in self._held:
                thing.close()


class Links(list[Link]):
    """A group of links that are closed together, the last one first. A context manager.

    Attributes:
        skipped: programs and struct_ops maps that were left out, each with the reason.
        failed: programs and struct_ops maps that could not be attached, each with the error.
    """

    def __init__(self, links: Iterable[Link] = ()) -> None:
        super().__init__(links)
        self.skipped: list[tuple[Attachable | StructOpsMap, str]] = []
        self.failed: list[tuple[Attachable | StructOpsMap, Exception]] = []

    def close(self) -> None:
        """Closes every link; the first error is raised after all have been tried."""
        self._each("close")

    def detach(self) -> None:
        """Detaches every link; the first error is raised after all have been tried."""
        self._each("detach")

    def _each(self, method: str) -> None:
        failure: Exception | None = None
        for link in reversed(self):
            try:
                getattr(link, method)()
            except Exception as error:  # the rest must be closed all the same
                failure = failure or error
        if failure is not None:
            raise failure

    @property
    def closed(self) -> bool:
        return all(link.closed for link in self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Links {list.__repr__(self)}>"


def iter_links() -> Iterator[LinkInfo]:
    """What the kernel tells about each link of the system: `pybpf.system.links`."""
    from pybpf.system import links

    return links()


def _is_link(fd: FD) -> bool:
    """Whether a descriptor is a link: the kernel names the anonymous inodes of its objects."""
    return os.readlink(f"/proc/self/fd/{fd.fileno()}") in ("anon_inode:bpf_link", "anon_inode:bpf-link")


def _adopt(fd: FD, pin_path: str) -> Link:
    """A `Link` for a descriptor that came from the kernel."""
    from pybpf.links.describe import kind_of, target_of

    info = syscall.link_info(fd)
    make = Link
    if info.type == BPF_LINK_TYPE_ITER:
        from pybpf.links.iter import IterLink

        make = IterLink
    elif info.type == BPF_LINK_TYPE_STRUCT_OPS:
        from pybpf.links.struct_ops import StructOpsLink

        make = StructOpsLink
    link = make(fd, kind_of(info), target_of(info))
    link._id = info.id
    link._pin_path = pin_path
    return link
