"""Multi-kprobes and sessions: one link on many kernel functions at once.

Functions are given by name, by address, or by a pattern (``*`` any run, ``?`` one character). A pattern is matched
against what ftrace can trace, and sent as addresses.

Source: kernel/trace/bpf_trace.c, bpf_kprobe_multi_link_attach. Since Linux 5.18, sessions since 6.12.
"""

from __future__ import annotations

import errno

from pybpf import syscall, tracefs
from pybpf.constants import BPF_F_KPROBE_MULTI_RETURN, BPF_TRACE_KPROBE_MULTI, BPF_TRACE_KPROBE_SESSION
from pybpf.errors import BPFError, BPFNotFoundError, BPFPermissionError, kernel_error
from pybpf.links.base import Link
from pybpf.links.refusal import CAP_PERFMON, attaching, permission_hints, refused
from pybpf.symbols.glob import is_pattern, matcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pybpf.links.base import Attachable

HIDDEN_HINT = "Addresses of kernel functions read as zero: kernel.kptr_restrict hides them, or CAP_SYSLOG is missing"


def attach_kprobe_multi(
    program: Attachable,
    functions: str | Sequence[str] = (),
    *,
    addresses: Sequence[int] = (),
    cookies: Sequence[int] = (),
    cookie: int = 0,
    retprobe: bool = False,
) -> Link:
    """Attaches a program to many kernel functions with one link. Since Linux 5.18.

    Args:
        program: of type kprobe, loaded for kprobe.multi or kprobe.session. A session program (Linux 6.12) runs at
            entry and return.
        functions: a name, a pattern such as ``"tcp_*"``, or a list of names.
        addresses: addresses of functions, in place of names.
        cookies: one number for each function, which bpf_get_attach_cookie() gives to the program. Not with a pattern.
        cookie: one number for all of them.
        retprobe: attach to the returns.

    Raises:
        BPFNotFoundError: no function fits, or one of the names is unknown.
        NotSupportedError: the kernel has no fprobe (CONFIG_FPROBE).
        BPFPermissionError: a capability is missing, or addresses are hidden from this process.
        ValueError: a session with retprobe; names and addresses; cookies that do not pair up.
    """
    is_session = program.attach_type_number == BPF_TRACE_KPROBE_SESSION
    if is_session and retprobe:
        raise ValueError("a session sees entry and return: retprobe has no meaning for it")
    if bool(functions) == bool(addresses):
        raise ValueError("give functions or addresses")
    kind = "kprobe_session" if is_session else "kretprobe_multi" if retprobe else "kprobe_multi"
    names: list[str] = [functions] if isinstance(functions, str) else list(functions)
    target = names[0] if len(names) == 1 else f"{len(names or addresses)} functions"
    what = attaching(program, f"{kind} {target}")
    places = list(addresses)
    if len(names) == 1 and is_pattern(names[0]):
        if cookies:
            raise ValueError("cookies go with names or addresses, not with a pattern")
        try:
            places, names = matching_addresses(names[0], entries=bool(cookie)), []
        except BPFError as error:
            raise refused(error, f"{what}: {error.what}") from None
    if cookie:
        if cookies:
            raise ValueError("give cookie or cookies")
        cookies = [cookie] * len(names or places)
    if cookies and len(cookies) != len(names or places):
        raise ValueError(f"{len(cookies)} cookies for {len(names or places)} functions")
    try:
        fd = syscall.link_create(
            program,
            0,
            BPF_TRACE_KPROBE_SESSION if is_session else BPF_TRACE_KPROBE_MULTI,
            multi_flags=BPF_F_KPROBE_MULTI_RETURN if retprobe else 0,
            syms=names or None,
            addrs=None if names else places,
            cookies=list(cookies) or None,
        )
    except BPFError as error:
        raise refused(error, what, _hints()) from None
    return Link(fd, kind, target)


def matching_addresses(pattern: str, *, entries: bool = False) -> list[int]:
    """The addresses of the functions that ftrace can trace and whose names fit the pattern.

    They come from ``available_filter_functions_addrs`` of tracefs (Linux 6.5), or from /proc/kallsyms for the names in
    ``available_filter_functions``.

    Args:
        pattern: as `pybpf.symbols.glob` reads it.
        entries: tracefs tells where ftrace hooks in, which on machines with branch protection is some bytes behind the
            entry. The kernel finds a cookie by the entry alone.

    Raises:
        BPFNotFoundError: no function fits.
        BPFPermissionError: addresses are hidden from this process.
    """
    fits = matcher(pattern)
    root = tracefs.root()
    try:
        listed = _listed_addresses(f"{root}/available_filter_functions_addrs", fits)
        found = _entries(listed) if entries else [address for _, address in listed]
    except FileNotFoundError:
        found = _kallsyms_addresses(fits)
    except OSError as error:
        raise kernel_error(error.errno or 0, "open", str(error.filename), tracefs.refusal_hint()) from error
    if not found:
        raise BPFNotFoundError(errno.ENOENT, "read", f"no traceable kernel function fits {pattern!r}")
    if not all(found):
        raise BPFPermissionError(errno.EPERM, "read", f"{pattern!r} cannot be resolved", HIDDEN_HINT)
    return found


def _listed_addresses(path: str, fits: Callable[[str], bool]) -> list[tuple[str, int]]:
    """Names and addresses from lines such as ``ffffffff81000000 do_one_initcall``; ``[name]`` follows for modules."""
    found: list[tuple[str, int]] = []
    with open(path) as file:
        for line in file:
            address, name, *_ = line.split()
            if fits(name):
                found.append((name, int(address, 16)))
    return found


def _entries(listed: list[tuple[str, int]]) -> list[int]:
    """The entry of each function: the symbol of its name that is nearest before the address."""
    from pybpf.symbols import kallsyms

    names = {name for name, _ in listed}
    symbols: dict[str, list[int]] = {}
    for name, address in kallsyms.functions():
        if name in names:
            symbols.setdefault(name, []).append(address)
    return [max((one for one in symbols.get(name, ()) if one <= place), default=place) for name, place in listed]


def _kallsyms_addresses(fits: Callable[[str], bool]) -> list[int]:
    from pybpf.symbols import kallsyms

    traceable = {name for name, _ in tracefs.traceable_functions() if fits(name)}
    return sorted(
        {
            address
            for name, address in kallsyms.functions()
            if name in traceable or (".llvm." in name and name.partition(".llvm.")[0] in traceable)
        }
    )


def _hints() -> dict[int, str]:
    return {
        errno.ESRCH: "The kernel has no such function, or ftrace cannot trace it",
        errno.ENOENT: "The kernel has no such function, or ftrace cannot trace it",
        errno.EINVAL: "The program was not loaded for kprobe.multi, or the kernel is older than Linux 5.18",
        errno.EOPNOTSUPP: "The kernel was built without fprobe (CONFIG_FPROBE)",
        **permission_hints(CAP_PERFMON),
    }
