"""Multi-uprobes and sessions: one link on many places of one executable or library.

Source: kernel/trace/bpf_trace.c, bpf_uprobe_multi_link_attach. Since Linux 6.6, sessions since 6.13.
"""

from __future__ import annotations

import errno
import os

from pybpf import syscall
from pybpf.constants import BPF_F_UPROBE_MULTI_RETURN, BPF_TRACE_UPROBE_MULTI, BPF_TRACE_UPROBE_SESSION
from pybpf.errors import BPFError, BPFNotFoundError
from pybpf.links.base import Link
from pybpf.links.refusal import CAP_PERFMON, attaching, permission_hints, refused
from pybpf.symbols.binary import find_binary
from pybpf.symbols.glob import is_pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybpf.links.base import Attachable
    from pybpf.syscall import FD


def attach_uprobe_multi(
    program: Attachable,
    path: str,
    symbols: str | Sequence[str] = (),
    *,
    offsets: Sequence[int] = (),
    pid: int = -1,
    cookies: Sequence[int] = (),
    cookie: int = 0,
    ref_ctr_offsets: Sequence[int] = (),
    retprobe: bool = False,
) -> Link:
    """Attaches a program to many functions of an executable or library with one link. Since Linux 6.6.

    Args:
        program: of type kprobe, loaded for uprobe.multi or uprobe.session. A session program (Linux 6.13) runs at entry
            and return.
        path: the file; a name without a slash is looked up as a library or program.
        symbols: a function, a pattern such as ``"gnutls_*"``, or a list of functions.
        offsets: offsets in the file, in place of symbols.
        pid: only this process; -1 for all, 0 for the caller.
        cookies: one number for each place, which bpf_get_attach_cookie() gives to the program. Not with a pattern.
        cookie: one number for all of them.
        ref_ctr_offsets: for each place, where a counter is that the kernel raises (0: none). Not with a pattern.
        retprobe: attach to the returns.

    Raises:
        BPFNotFoundError: the file, the process or a function does not exist, or no function fits.
        ObjectError: the file is no executable or library.
        NotSupportedError: the kernel has no uprobes.
        ValueError: a session with retprobe; symbols and offsets; lists that do not pair up.
    """
    is_session = program.attach_type_number == BPF_TRACE_UPROBE_SESSION
    if is_session and retprobe:
        raise ValueError("a session sees entry and return: retprobe has no meaning for it")
    if bool(symbols) == bool(offsets):
        raise ValueError("give symbols or offsets")
    kind = "uprobe_session" if is_session else "uretprobe_multi" if retprobe else "uprobe_multi"
    names = [symbols] if isinstance(symbols, str) else list(symbols)
    pattern = names[0] if len(names) == 1 and is_pattern(names[0]) else ""
    if pattern and (cookies or ref_ctr_offsets):
        raise ValueError("cookies and reference counters go with symbols or offsets, not with a pattern")
    target = f"{path}:{names[0] if len(names) == 1 else f'{len(names or offsets)} places'}"
    what = attaching(program, f"{kind} {target}")
    try:
        file, places = _locate(path, pid, names, pattern, offsets)
    except BPFError as error:
        raise refused(error, f"{what}: {error.what}") from None
    if cookie:
        if cookies:
            raise ValueError("give cookie or cookies")
        cookies = [cookie] * len(places)
    for name, values in (("cookies", cookies), ("ref_ctr_offsets", ref_ctr_offsets)):
        if values and len(values) != len(places):
            raise ValueError(f"{len(values)} {name} for {len(places)} places")
    try:
        fd = create_uprobe_multi(
            program, file, places, pid=pid, cookies=cookies, ref_ctr_offsets=ref_ctr_offsets, retprobe=retprobe
        )
    except BPFError as error:
        raise refused(error, what) from None
    return Link(fd, kind, target)


def create_uprobe_multi(
    program: Attachable,
    file: str,
    offsets: Sequence[int],
    *,
    pid: int,
    cookies: Sequence[int],
    ref_ctr_offsets: Sequence[int],
    retprobe: bool = False,
) -> FD:
    """The link of one program at many places of a file. The refusal carries a hint."""
    is_session = program.attach_type_number == BPF_TRACE_UPROBE_SESSION
    try:
        return syscall.link_create(
            program,
            0,
            BPF_TRACE_UPROBE_SESSION if is_session else BPF_TRACE_UPROBE_MULTI,
            path=file,
            offsets=offsets,
            ref_ctr_offsets=list(ref_ctr_offsets) or None,
            cookies=list(cookies) or None,
            pid=0 if pid < 0 else pid or os.getpid(),
            multi_flags=BPF_F_UPROBE_MULTI_RETURN if retprobe else 0,
        )
    except BPFError as error:
        raise refused(error, "", _hints(file, pid)) from None


def _locate(path: str, pid: int, names: list[str], pattern: str, offsets: Sequence[int]) -> tuple[str, list[int]]:
    """The file to give to the kernel, and the places in it."""
    from pybpf.symbols.elf import Binary

    file = find_binary(path, pid)
    if offsets:
        return file, list(offsets)
    with Binary(file) as binary:
        if not pattern:
            return binary.path, [binary.offset(name) for name in names]
        found = [offset for _, offset in binary.matches(pattern)]
    if not found:
        raise BPFNotFoundError(errno.ENOENT, "open", f"no function of {file} fits {pattern!r}")
    return binary.path, found


def _hints(file: str, pid: int) -> dict[int, str]:
    return {
        errno.ESRCH: f"There is no process {pid}",
        errno.ENOENT: f"{file} does not exist",
        errno.EINVAL: "The program was not loaded for uprobe.multi, or the kernel is older than Linux 6.6",
        errno.EBADF: f"{file} is no regular file",
        errno.EOPNOTSUPP: "The kernel was built without uprobes (CONFIG_UPROBES)",
        **permission_hints(CAP_PERFMON),
    }
