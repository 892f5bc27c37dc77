"""The object's own type information, given to the kernel.

Rules:

* It goes as the file has it first. Only after a refusal are the kinds that this kernel lacks probed and replaced.
* Going on without it is allowed, only types are lost (libbpf does so too), unless a struct_ops map needs it: then the
  error carries what the kernel's BTF verifier said.

Source: bpf_object__sanitize_and_load_btf() and kernel_needs_btf() of libbpf.
"""

from __future__ import annotations

import errno

from pybpf import syscall
from pybpf.errors import BPFError, VerifierError, VerifierPermissionError
from pybpf.memlock import with_memlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.fd import FD, FdLike

LOG_SIZE = 1 << 20


def load_btf(data: bytes, what: str, *, required: bool, token_fd: FdLike | None = None) -> FD | None:
    """BPF_BTF_LOAD (Linux 4.18); None when the kernel does not take it and it is not required.

    Args:
        data: the object's BTF as `pybpf.elf.datasec.kernel_btf` made it.
        what: the object, for the error.
        token_fd: a BPF token to use.

    Raises:
        VerifierError: the kernel refused it, and it is required; `log` says why.
        BPFError: the kernel knows no BTF, or does not let this process load any, and it is required.
    """
    try:
        return with_memlock(syscall.btf_load, data, token_fd=token_fd)
    except BPFError as first:
        refusal = first
    from pybpf.probe.btf import has_btf, missing_btf_kinds

    missing: frozenset[str] = missing_btf_kinds(token_fd) if has_btf(token_fd=token_fd) else frozenset()
    if missing:
        from pybpf.btf.writer import sanitise

        data = sanitise(data, missing)
        try:
            return with_memlock(syscall.btf_load, data, token_fd=token_fd)
        except BPFError as second:
            refusal = second
    if required:
        raise _explained(refusal, data, what, token_fd)
    return None


def _explained(refusal: BPFError, data: bytes, what: str, token_fd: FdLike | None) -> BPFError:
    """The refusal with the kernel's log, which only a second attempt asks for."""
    buffer = syscall.LogBuffer(LOG_SIZE)
    number = refusal.errno or errno.EINVAL
    what = f"type information of {what}"
    try:
        syscall.btf_load(data, log_level=1, log_buffer=buffer, token_fd=token_fd).close()
    except BPFError as error:
        number = error.errno or number
    log = buffer.text
    if not log:
        refusal.what = what
        return refusal
    kind = VerifierPermissionError if number in (errno.EPERM, errno.EACCES) else VerifierError
    lines = [line for line in log.splitlines() if line.strip()]
    return kind(number, refusal.command, what, log=log, reason=lines[-1] if lines else "")
