"""What older kernels need done differently.

Rules:

* The modern call is tried first. Only when it fails is a probe run (`pybpf.probe`), and only a conclusive answer kept.
* No kernel version is compared: each probe makes the smallest call that shows the feature.
* The comment at each workaround names the kernel that made it unnecessary. Linux 5.10 is the oldest that is looked at.
"""

from __future__ import annotations

import errno

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import BPFError
from pybpf.probe.features import has_feature
from pybpf.probe.programs import RETURN_0
from pybpf.syscall import door

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.fd import FdLike


def charges_memlock() -> bool:
    """True on kernels that charge BPF memory to RLIMIT_MEMLOCK: before Linux 5.11 (commit 3ac1f01b43b6).

    Where it cannot be told, that may be because of this very limit: it is taken for a yes.
    """
    return not has_feature("memcg_accounting")


def _limit_memlock(limit: tuple[int, int]) -> int:
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, limit)
    except ValueError as error:  # how Python says EPERM and EINVAL here
        raise PermissionError(errno.EPERM, str(error)) from None
    return 0


def raise_memlock() -> bool:
    """Lift this process's RLIMIT_MEMLOCK where that can have been the reason for EPERM. True when it was lifted."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY or not charges_memlock():
        return False
    for limit in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (hard, hard)):
        arguments = {"soft": limit[0], "hard": limit[1]}
        enter = lambda limit=limit: _limit_memlock(limit)  # noqa: E731
        if door.other("setrlimit", "RLIMIT_MEMLOCK", resource.RLIMIT_MEMLOCK, arguments, enter) < 0:
            continue
        return limit[0] == resource.RLIM_INFINITY or limit[0] > soft
    return False


def make_kernel_read_its_btf(token_fd: FdLike | None = None) -> None:
    """Let the verifier check a program: Linux 5.10 reads its own BTF only then, and knows no struct_ops before."""
    try:
        syscall.prog_load(c.BPF_PROG_TYPE_SOCKET_FILTER, RETURN_0, token_fd=token_fd).close()
    except BPFError:
        pass


def has_uprobe_multi(token_fd: FdLike | None = None) -> bool:
    """True when one link holds many uprobes, and means processes by `pid`: Linux 6.6 (before 6.10 with a later fix)."""
    return bool(has_feature("uprobe_multi_pid", token_fd=token_fd))


_quick_uprobe_size: int | None = None


def quick_uprobe_size() -> int:
    """Bytes of the no-operation instruction that the kernel turns into a call when a uprobe is on it; 0 if none.

    x86-64, Linux 6.18 (5 bytes), later 10 bytes. The call ends in uprobe(2), whose refusal to be called by anybody else
    tells which.
    """
    global _quick_uprobe_size
    if _quick_uprobe_size is None:
        _quick_uprobe_size = {errno.ENXIO: 5, errno.EPROTO: 10}.get(-door.uprobe(), 0)
    return _quick_uprobe_size


def has_bpf_cookie(token_fd: FdLike | None = None) -> bool:
    """True when attachments carry a cookie (Linux 5.15)."""
    return bool(has_feature("cookies", token_fd=token_fd))
