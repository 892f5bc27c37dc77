"""Which links this kernel makes, and where programs attach.

Each question is a call that must fail: with a target that does not exist. A kernel that knows the kind complains about
the target (EBADF, ENODEV, ...), one that does not gives EINVAL. What attaches nothing (iterators), or to a function of
the kernel that exists for tests (fentry), is made for real and closed at once.

Source: kernel/bpf/syscall.c (bpf_prog_query, link_create), kernel/bpf/verifier.c (bpf_check_attach_target).
"""

from __future__ import annotations

import errno

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import ENOTSUPP, BPFError, BTFError, ObjectError
from pybpf.memlock import with_memlock
from pybpf.probe.answer import Answer, ask, kept, undecided
from pybpf.probe.names import canonical, number_of
from pybpf.probe.programs import FIELDS, RETURN_0, has_program_type, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pybpf.syscall.fd import FD, FdLike

NOWHERE = "pybpf_no_such_symbol"
NO_INTERFACE = 0x7FFFFFFF
LOOPBACK = 1
"""An interface that every network namespace has, and that offloads no programs."""
TEST_FUNCTION = "bpf_fentry_test1"
"""A function of the kernel that only BPF_PROG_TEST_RUN calls (net/bpf/test_run.c, Linux 5.5)."""

MISSING = (errno.EBADF, errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EAFNOSUPPORT)
CANNOT_OFFLOAD = (errno.EOPNOTSUPP, errno.EEXIST, errno.EBUSY)
"""How a kernel that knows a kind of link tells that the target does not exist, or cannot take it."""

LINKS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "cgroup": (c.BPF_PROG_TYPE_CGROUP_SKB, c.BPF_CGROUP_INET_INGRESS, {"target": -1}),
    "netns": (c.BPF_PROG_TYPE_FLOW_DISSECTOR, c.BPF_FLOW_DISSECTOR, {"target": -1}),
    "xdp": (c.BPF_PROG_TYPE_XDP, c.BPF_XDP, {"target": LOOPBACK, "flags": c.XDP_FLAGS_HW_MODE}),
    "perf_event": (c.BPF_PROG_TYPE_TRACEPOINT, c.BPF_PERF_EVENT, {"target": -1}),
    "kprobe_multi": (c.BPF_PROG_TYPE_KPROBE, c.BPF_TRACE_KPROBE_MULTI, {"syms": [NOWHERE]}),
    "netfilter": (c.BPF_PROG_TYPE_NETFILTER, c.BPF_NETFILTER, {"pf": 1}),
    "tcx": (c.BPF_PROG_TYPE_SCHED_CLS, c.BPF_TCX_INGRESS, {"target": NO_INTERFACE}),
    "uprobe_multi": (c.BPF_PROG_TYPE_KPROBE, c.BPF_TRACE_UPROBE_MULTI, {"path": "/", "offsets": [0]}),
    "netkit": (c.BPF_PROG_TYPE_SCHED_CLS, c.BPF_NETKIT_PRIMARY, {"target": NO_INTERFACE}),
    "sockmap": (c.BPF_PROG_TYPE_SK_MSG, c.BPF_SK_MSG_VERDICT, {"target": -1}),
}
"""Kind of link -> program type, attach type, and a target that does not exist."""

EXPECTED = ("kprobe_multi", "netfilter", "uprobe_multi")
"""Those whose programs are loaded for the attach type."""

QUERIED = ("cgroup_", "lsm_cgroup", "sk_lookup", "flow_dissector", "sk_skb_", "sk_msg_", "lirc_", "tcx_", "netkit_")
"""Attach types, or how their names begin, that BPF_PROG_QUERY knows."""

SOCKMAP = ("sk_skb_stream_parser", "sk_skb_stream_verdict", "sk_msg_verdict")
"""Those of them that it knows since Linux 5.18 only; programs attach there since 4.14."""

TRACED: dict[int, str] = {
    c.BPF_TRACE_RAW_TP: "attach_btf_id 1 is not a typedef",
    c.BPF_TRACE_FENTRY: "attach_btf_id 1 is not a function",
    c.BPF_TRACE_FEXIT: "attach_btf_id 1 is not a function",
    c.BPF_MODIFY_RETURN: "attach_btf_id 1 is not a function",
    c.BPF_TRACE_ITER: "attach_btf_id 1 is not a function",
    c.BPF_TRACE_FSESSION: "attach_btf_id 1 is not a function",
}
"""What the verifier says about a target that is none, if it knows the attach type."""

MULTI_TRACED = (c.BPF_TRACE_FENTRY_MULTI, c.BPF_TRACE_FEXIT_MULTI, c.BPF_TRACE_FSESSION_MULTI)


def knows_link(program: FdLike, attach_type: int) -> Answer:
    """Whether the kernel makes links for this attach type: it then looks at the target's descriptor before all else.

    Attaching asks so too, with a program that it has at hand.
    """
    return ask(syscall.link_create, program, -1, attach_type, yes=(errno.EBADF,))


def has_link_type(name: int | str, *, token_fd: FdLike | None = None) -> Answer:
    """Whether attachments of this kind can be made as links.

    Raises:
        ValueError: the name is unknown, or pybpf does not know how to ask for this one.
    """
    number = number_of("link type", name)
    plain = canonical("link type").get(number, "")
    find = SPECIAL.get(plain)
    if find is None and plain not in LINKS:
        raise ValueError(f"there is no probe for the link type {name!r}")
    return kept(("link type", number), lambda: find(token_fd) if find else _refused_link(plain, token_fd), token_fd)


def _refused_link(plain: str, token_fd: FdLike | None) -> Answer:
    program_type, attach_type, target = LINKS[plain]
    expected = attach_type if plain in EXPECTED else 0
    return _link_with(program_type, expected, attach_type, target, token_fd)


def _link_with(
    program_type: int, expected: int, attach_type: int, target: dict[str, Any], token_fd: FdLike | None
) -> Answer:
    """Load a program and try to attach it to something that does not exist."""
    target = dict(target)
    place = target.pop("target", 0)
    yes = {-1: (errno.EBADF,), LOOPBACK: CANNOT_OFFLOAD}.get(place, MISSING)
    return _with_program(
        program_type,
        {"expected_attach_type": expected, "token_fd": token_fd},
        lambda program: ask(syscall.link_create, program, place, attach_type, yes=yes, **target),
    )


def _with_program(program_type: int, fields: dict[str, Any], question: Callable[[FD], Answer]) -> Answer:
    try:
        program = with_memlock(syscall.prog_load, program_type, RETURN_0, **fields)
    except BPFError as error:
        if program_type in FIELDS:  # the type may be missing; its own question says so
            answer = has_program_type(program_type, token_fd=fields.get("token_fd"))
            if answer.verdict == "no":
                return answer
        return undecided(error, "the program for the probe was refused")
    with program:
        return question(program)


def _raw_tracepoint(token_fd: FdLike | None) -> Answer:
    return _with_program(
        c.BPF_PROG_TYPE_RAW_TRACEPOINT,
        {"token_fd": token_fd},
        lambda program: ask(syscall.raw_tracepoint_open, program, NOWHERE, yes=(errno.ENOENT,)),
    )


def _target(name: str, attach_type: int, token_fd: FdLike | None) -> dict[str, Any] | None:
    from pybpf.loading.kernel_btf import find_attach_target

    try:
        target, _ = find_attach_target(name, attach_type)
    except (BTFError, ObjectError, OSError):
        return None
    return {"expected_attach_type": attach_type, "attach_btf_id": target, "token_fd": token_fd}


def _trampoline(token_fd: FdLike | None) -> Answer:
    """fentry on a function that nothing calls: the program is loaded, attached and detached."""
    fields = _target(TEST_FUNCTION, c.BPF_TRACE_FENTRY, token_fd)
    if fields is None:
        return Answer("cannot tell", "the kernel's BTF", reason=f"there is none, or it has no {TEST_FUNCTION}")
    return _with_program(c.BPF_PROG_TYPE_TRACING, fields, lambda program: _attach_and_detach(program))


def _attach_and_detach(program: FD) -> Answer:
    answer = ask(syscall.raw_tracepoint_open, program)
    if answer.errno == ENOTSUPP:
        answer.reason = "this machine has no BPF trampolines (arm64 has since Linux 6.0)"
    return answer


def _iter(token_fd: FdLike | None) -> Answer:
    fields = _target("task", c.BPF_TRACE_ITER, token_fd)
    if fields is None:
        return Answer("no", "the kernel's BTF", reason="there is none, or it has no bpf_iter_task")
    return _with_program(
        c.BPF_PROG_TYPE_TRACING, fields, lambda program: ask(syscall.link_create, program, 0, c.BPF_TRACE_ITER)
    )


def _struct_ops(token_fd: FdLike | None) -> Answer:
    from pybpf.probe.maps import create

    flags = {"map_flags": c.BPF_F_LINK, "max_entries": 1}
    return create(c.BPF_MAP_TYPE_STRUCT_OPS, token_fd=token_fd, yes=(ENOTSUPP,), **flags)


def _tracing_multi(token_fd: FdLike | None) -> Answer:
    return _load_tracing(c.BPF_TRACE_FENTRY_MULTI, 0, token_fd)


def _load_tracing(attach_type: int, target: int, token_fd: FdLike | None) -> Answer:
    return load(
        c.BPF_PROG_TYPE_TRACING,
        RETURN_0,
        log=TRACED.get(attach_type, ""),
        expected_attach_type=attach_type,
        attach_btf_id=target,
        token_fd=token_fd,
    )


SPECIAL: dict[str, Callable[[FdLike | None], Answer]] = {
    "raw_tracepoint": _raw_tracepoint,
    "tracing": _trampoline,
    "iter": _iter,
    "struct_ops": _struct_ops,
    "tracing_multi": _tracing_multi,
}
"""Kinds of links that take more than a target that does not exist."""


def has_attach_type(name: int | str, *, token_fd: FdLike | None = None) -> Answer:
    """Whether programs can be attached there.

    For fentry, fexit, fmod_ret and LSM a yes says that the verifier takes such programs; whether the machine can make
    trampolines to run them is `has_link_type("tracing")`.

    Raises:
        ValueError: the name is unknown, or pybpf does not know how to ask for this one.
    """
    number = number_of("attach type", name)
    plain = canonical("attach type").get(number, "")
    if not plain:
        raise ValueError(f"there is no probe for the attach type {name!r}")
    return kept(("attach type", number), lambda: _find_attach_type(number, plain, token_fd), token_fd)


def _find_attach_type(number: int, plain: str, token_fd: FdLike | None) -> Answer:
    if plain.startswith(QUERIED):
        return _query(number, plain)
    if number in TRACED:
        return _load_tracing(number, 1, token_fd)
    if number in MULTI_TRACED:
        return _load_tracing(number, 0, token_fd)
    if number in (c.BPF_TRACE_KPROBE_SESSION, c.BPF_TRACE_UPROBE_SESSION):
        target = LINKS["kprobe_multi" if number == c.BPF_TRACE_KPROBE_SESSION else "uprobe_multi"][2]
        return _link_with(c.BPF_PROG_TYPE_KPROBE, number, number, target, token_fd)
    return ATTACH_TYPES[plain](token_fd)


def _query(number: int, plain: str) -> Answer:
    """BPF_PROG_QUERY of something that is not there."""
    answer = ask(syscall.prog_query, -1, number, yes=(errno.EBADF, errno.ENODEV))
    if answer.verdict == "no" and plain in SOCKMAP:
        return ask(syscall.prog_attach, -1, -1, number, yes=(errno.EBADF,))
    return answer


def _reuseport(token_fd: FdLike | None) -> Answer:
    """Kernels without it take any attach type for such programs."""
    kind = c.BPF_PROG_TYPE_SK_REUSEPORT
    answer = load(kind, RETURN_0, expected_attach_type=c.BPF_SK_REUSEPORT_SELECT_OR_MIGRATE, token_fd=token_fd)
    if answer and load(kind, RETURN_0, expected_attach_type=c.BPF_XDP, token_fd=token_fd):
        return Answer("no", answer.command, reason="programs of this type are loaded for any attach type")
    return answer


def _dev_program(map_type: int) -> Callable[[FdLike | None], Answer]:
    """Programs in a devmap or cpumap came with values that have room for one."""

    def find(token_fd: FdLike | None) -> Answer:
        from pybpf.probe.maps import create

        return create(map_type, token_fd=token_fd, value_size=8)

    return find


ATTACH_TYPES: dict[str, Callable[[FdLike | None], Answer]] = {
    "lsm_mac": lambda token_fd: has_program_type("lsm", token_fd=token_fd),
    "xdp": lambda token_fd: has_program_type("xdp", token_fd=token_fd),
    "xdp_devmap": _dev_program(c.BPF_MAP_TYPE_DEVMAP),
    "xdp_cpumap": _dev_program(c.BPF_MAP_TYPE_CPUMAP),
    "sk_reuseport_select": _reuseport,
    "sk_reuseport_select_or_migrate": _reuseport,
    "perf_event": lambda token_fd: has_link_type("perf_event", token_fd=token_fd),
    "trace_kprobe_multi": lambda token_fd: has_link_type("kprobe_multi", token_fd=token_fd),
    "struct_ops": _struct_ops,
    "netfilter": lambda token_fd: has_link_type("netfilter", token_fd=token_fd),
    "trace_uprobe_multi": lambda token_fd: has_link_type("uprobe_multi", token_fd=token_fd),
}
"""Attach types that are asked for in a way of their own."""
