"""BPF tokens: rights that a privileged process delegates to a user namespace through a BPF file system (Linux 6.9).

Rules:

* What the caller names must work. What is found without being asked for (the token of /sys/fs/bpf in a user namespace
  other than the initial one) is used if it is there.
* The initial user namespace gives no tokens, so no one is looked for there.

Source: bpf_object_prepare_token() of libbpf; kernel/bpf/token.c.
"""

from __future__ import annotations

import errno
import os

from pybpf import syscall
from pybpf.errors import BPFError
from pybpf.syscall.fd import FD, duplicate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.fd import FdLike

ENVIRONMENT = "LIBBPF_BPF_TOKEN_PATH"
"""Environment variable with the path of a BPF file system, as libbpf has it; an empty one means no token."""

DEFAULT_PATH = "/sys/fs/bpf"

INITIAL_NAMESPACE = 0xEFFFFFFD
"""Inode of the initial user namespace (PROC_USER_INIT_INO, include/linux/proc_ns.h)."""

_HINTS = {
    errno.EOPNOTSUPP: "There are no tokens for the initial user namespace, and none before Linux 6.9",
    errno.EINVAL: "It is not the root directory of a BPF file system, or the kernel is older than Linux 6.9",
    errno.ENOENT: "Nothing is delegated by this file system: mount it with delegate_cmds and the like",
    errno.EPERM: "The file system was made for another user namespace, or CAP_BPF is missing in this one",
}


def open_token(given: str | os.PathLike[str] | FdLike | None) -> FD | None:
    """The token to load an object with, or None.

    Args:
        given: the root directory of a BPF file system, or the descriptor of a token; an empty string for none; None
            for what the environment says, else for the file system at /sys/fs/bpf, if it delegates anything here.

    Raises:
        OSError: the path cannot be opened.
        BPFError: it gives no token; the hint says why.
    """
    if given is None:
        given = os.environ.get(ENVIRONMENT)
        if given is None:
            return _default_token()
    if not isinstance(given, (str, os.PathLike)):
        return FD(duplicate(given))
    path = os.fspath(given)
    if not path:
        return None
    try:
        return _token_of(path)
    except BPFError as error:
        error.what = f"token of {path}"
        error.hint = _HINTS.get(error.errno or 0, "")
        raise


def _default_token() -> FD | None:
    try:
        if os.stat("/proc/self/ns/user").st_ino == INITIAL_NAMESPACE:
            return None
        return _token_of(DEFAULT_PATH)
    except OSError:
        return None


def _token_of(path: str) -> FD:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return syscall.token_create(directory)
    finally:
        os.close(directory)
