"""The BTF objects that live in the running kernel, and which of their types a program attaches to.

Rules:

* Reading types is `pybpf.btf.kernel`'s work (files of sysfs); this module adds what only bpf(2) gives: a module's BTF
  descriptor, which attach_btf_obj_fd, fd_array and ldimm64 need.
* A module whose BTF is broken is passed over: it must not stop a load that does not need it.
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf import syscall
from pybpf.btf import kernel
from pybpf.btf.kinds import KIND_FUNC, KIND_TYPEDEF
from pybpf.errors import BPFNotFoundError, BTFError, ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pybpf.btf.reader import BTF
    from pybpf.syscall.fd import FD

ATTACH_PREFIXES = {
    c.BPF_TRACE_RAW_TP: ("btf_trace_", KIND_TYPEDEF),
    c.BPF_LSM_MAC: ("bpf_lsm_", KIND_FUNC),
    c.BPF_LSM_CGROUP: ("bpf_lsm_", KIND_FUNC),
    c.BPF_TRACE_ITER: ("bpf_iter_", KIND_FUNC),
}
"""How the name of an attach target is spelled in the kernel's BTF, by attach type; others: the function's own name."""


def kernel_btfs() -> Iterator[BTF]:
    """The BTF of vmlinux, then that of every module."""
    yield kernel.vmlinux()
    yield from kernel.modules()


class ModuleDescriptors:
    """Descriptors of module BTF objects, opened once each and kept until `close()`.

    Finding them needs CAP_SYS_ADMIN (BPF_BTF_GET_FD_BY_ID, Linux 4.18; names of kernel BTF since Linux 5.11).
    """

    def __init__(self) -> None:
        self._fds: dict[str, FD] = {}

    def get(self, module: str) -> FD:
        """The descriptor of the module's BTF object.

        Raises:
            BPFError: the kernel does not let this process look, or no module of this name has BTF.
        """
        if module not in self._fds:
            self._fds[module] = self._find(module)
        return self._fds[module]

    @staticmethod
    def _find(module: str) -> FD:
        number = 0
        while (following := syscall.btf_get_next_id(number)) is not None:
            number = following
            try:
                fd = syscall.btf_get_fd_by_id(number)
            except BPFNotFoundError:  # unloaded between the two calls
                continue
            info = syscall.btf_info(fd)
            if info.kernel_btf and info.name == module:
                return fd
            fd.close()
        raise ObjectError(f"the kernel has no BTF of a module named {module!r}")

    def close(self) -> None:
        while self._fds:
            self._fds.popitem()[1].close()


def find_attach_target(target: str, attach_type: int) -> tuple[int, str]:
    """The type that a program of this attach type attaches to: its id, and the module it is in ("" for vmlinux).

    Args:
        target: what the section name says after the slash, with ``module:`` before it if need be.

    Raises:
        ObjectError: neither the kernel nor any module has it.
    """
    module, colon, name = target.rpartition(":")
    prefix, kind = ATTACH_PREFIXES.get(attach_type, ("", KIND_FUNC))
    if not colon or (module and "vmlinux".startswith(module)):
        found = kernel.vmlinux().get(prefix + name, kind)
        if found is not None:
            return found.id, ""
        if colon:
            raise ObjectError(f"the kernel's BTF has no {prefix}{name}")
    for btf in kernel.modules():
        if module and not btf.name.startswith(module):
            continue
        try:
            ids = btf.own_ids(prefix + name, kind)
        except BTFError:
            continue
        if ids:
            return ids[0], btf.name
    raise ObjectError(f"attach target {target!r}: the BTF of the kernel and its modules has no {prefix}{name}")
