"""The grammar of ``SEC("...")``: what the name of a section says about the program in it.

Rules of this module:

* One table, in libbpf's order. A pattern that ends in ``+`` matches its own name, and its name followed by a slash and
  anything, which are the *extras*: usually what to attach to. Any other pattern matches itself only.
* A leading ``?`` is no part of the name: it only says that the program is not loaded unless asked for.
* `attach` names the routine that attaches such a program without being told anything more; None means that the target
  (an interface, a cgroup ...) has to be given.

Source: tools/lib/bpf/libbpf.c, section_defs, Linux 7.2.
"""

from __future__ import annotations

from pybpf import constants as c

EXP_OPT = 1
"""The expected attach type is sent only if the kernel knows that field (4.17)."""
ATT = 2
"""The name also stands for an attach type (bpf_prog_attach)."""
BTF = 4
"""Needs the BTF id of what it attaches to, named by the extras."""
SLEEP = 8
"""The program may sleep: BPF_F_SLEEPABLE (5.10)."""
FRAGS = 16
"""The program knows packets in several pieces: BPF_F_XDP_HAS_FRAGS (5.18)."""
USDT = 32
"""The expected attach type is BPF_TRACE_UPROBE_MULTI where the kernel has it (6.6)."""


class SectionDefinition:
    """One row of the table.

    Attributes:
        pattern: as in the table, with the ``+``.
        type: BPF_PROG_TYPE_...
        attach_type: the expected attach type, BPF_...
        flags: EXP_OPT, ATT, BTF, SLEEP, FRAGS, USDT.
        attach: name of the routine that attaches it, or None.
    """

    __slots__ = ("attach", "attach_type", "flags", "pattern", "type")

    def __init__(self, pattern: str, type: int, attach_type: int, flags: int, attach: str | None) -> None:
        self.pattern = pattern
        self.type = type
        self.attach_type = attach_type
        self.flags = flags
        self.attach = attach

    @property
    def program_flags(self) -> int:
        """The BPF_F_... that the section asks for."""
        sleepable = c.BPF_F_SLEEPABLE if self.flags & SLEEP else 0
        frags = c.BPF_F_XDP_HAS_FRAGS if self.flags & FRAGS else 0
        return sleepable | frags

    def __repr__(self) -> str:
        return f"<SectionDefinition {self.pattern!r}>"


# pattern, program type, expected attach type, flags, attach routine
_TABLE: tuple[tuple[str, int, int, int, str | None], ...] = (
    ("socket", c.BPF_PROG_TYPE_SOCKET_FILTER, 0, 0, None),
    ("sk_reuseport/migrate", c.BPF_PROG_TYPE_SK_REUSEPORT, c.BPF_SK_REUSEPORT_SELECT_OR_MIGRATE, ATT, None),
    ("sk_reuseport", c.BPF_PROG_TYPE_SK_REUSEPORT, c.BPF_SK_REUSEPORT_SELECT, ATT, None),
    ("kprobe+", c.BPF_PROG_TYPE_KPROBE, 0, 0, "kprobe"),
    ("uprobe+", c.BPF_PROG_TYPE_KPROBE, 0, 0, "uprobe"),
    ("uprobe.s+", c.BPF_PROG_TYPE_KPROBE, 0, SLEEP, "uprobe"),
    ("kretprobe+", c.BPF_PROG_TYPE_KPROBE, 0, 0, "kprobe"),
    ("uretprobe+", c.BPF_PROG_TYPE_KPROBE, 0, 0, "uprobe"),
    ("uretprobe.s+", c.BPF_PROG_TYPE_KPROBE, 0, SLEEP, "uprobe"),
    ("kprobe.multi+", c.BPF_PROG_TYPE_KPROBE, c.BPF_TRACE_KPROBE_MULTI, 0, "kprobe_multi"),
    ("kretprobe.multi+", c.BPF_PROG_TYPE_KPROBE, c.BPF_TRACE_KPROBE_MULTI, 0, "kprobe_multi"),
    ("kprobe.session+", c.BPF_PROG_TYPE_KPROBE, c.BPF_TRACE_KPROBE_SESSION, 0, "kprobe_session"),
    ("uprobe.multi+", c.BPF_PROG_TYPE_KPROBE, c.BPF_TRACE_UPROBE_MULTI, 0, "uprobe_multi"),
    ("uretprobe.multi+", c.BPF_PROG_TYPE_KPROBE, c.BPF_TRACE_UPROBE_MULTI, 0, "uprobe_multi"),
    ("uprobe.session+", c.BPF_PROG_TYPE_KPROBE, c.BPF_TRACE_UPROBE_SESSION, 0, "uprobe_multi"),
    ("uprobe.multi.s+", c.BPF_PROG_TYPE_KPROBE, c.BPF_TRACE_UPROBE_MULTI, SLEEP, "uprobe_multi"),
    ("uretprobe.multi.s+", c.BPF_PROG_TYPE_KPROBE, c.BPF_TRACE_UPROBE_MULTI, SLEEP, "uprobe_multi"),
    ("uprobe.session.s+", c.BPF_PROG_TYPE_KPROBE, c.BPF_TRACE_UPROBE_SESSION, SLEEP, "uprobe_multi"),
    ("ksyscall+", c.BPF_PROG_TYPE_KPROBE, 0, 0, "ksyscall"),
    ("kretsyscall+", c.BPF_PROG_TYPE_KPROBE, 0, 0, "ksyscall"),
    ("usdt+", c.BPF_PROG_TYPE_KPROBE, 0, USDT, "usdt"),
    ("usdt.s+", c.BPF_PROG_TYPE_KPROBE, 0, USDT | SLEEP, "usdt"),
    ("tc/ingress", c.BPF_PROG_TYPE_SCHED_CLS, c.BPF_TCX_INGRESS, 0, None),
    ("tc/egress", c.BPF_PROG_TYPE_SCHED_CLS, c.BPF_TCX_EGRESS, 0, None),
    ("tcx/ingress", c.BPF_PROG_TYPE_SCHED_CLS, c.BPF_TCX_INGRESS, 0, None),
    ("tcx/egress", c.BPF_PROG_TYPE_SCHED_CLS, c.BPF_TCX_EGRESS, 0, None),
    ("tc", c.BPF_PROG_TYPE_SCHED_CLS, 0, 0, None),
    ("classifier", c.BPF_PROG_TYPE_SCHED_CLS, 0, 0, None),
    ("action", c.BPF_PROG_TYPE_SCHED_ACT, 0, 0, None),
    ("netkit/primary", c.BPF_PROG_TYPE_SCHED_CLS, c.BPF_NETKIT_PRIMARY, 0, None),
    ("netkit/peer", c.BPF_PROG_TYPE_SCHED_CLS, c.BPF_NETKIT_PEER, 0, None),
    ("tracepoint+", c.BPF_PROG_TYPE_TRACEPOINT, 0, 0, "tracepoint"),
    ("tp+", c.BPF_PROG_TYPE_TRACEPOINT, 0, 0, "tracepoint"),
    ("tracepoint.s+", c.BPF_PROG_TYPE_TRACEPOINT, 0, SLEEP, "tracepoint"),
    ("tp.s+", c.BPF_PROG_TYPE_TRACEPOINT, 0, SLEEP, "tracepoint"),
    ("raw_tracepoint+", c.BPF_PROG_TYPE_RAW_TRACEPOINT, 0, 0, "raw_tracepoint"),
    ("raw_tp+", c.BPF_PROG_TYPE_RAW_TRACEPOINT, 0, 0, "raw_tracepoint"),
    ("raw_tracepoint.s+", c.BPF_PROG_TYPE_RAW_TRACEPOINT, 0, SLEEP, "raw_tracepoint"),
    ("raw_tp.s+", c.BPF_PROG_TYPE_RAW_TRACEPOINT, 0, SLEEP, "raw_tracepoint"),
    ("raw_tracepoint.w+", c.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE, 0, 0, "raw_tracepoint"),
    ("raw_tp.w+", c.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE, 0, 0, "raw_tracepoint"),
    ("tp_btf+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_RAW_TP, BTF, "trace"),
    ("tp_btf.s+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_RAW_TP, BTF | SLEEP, "trace"),
    ("fentry+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_FENTRY, BTF, "trace"),
    ("fmod_ret+", c.BPF_PROG_TYPE_TRACING, c.BPF_MODIFY_RETURN, BTF, "trace"),
    ("fexit+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_FEXIT, BTF, "trace"),
    ("fentry.s+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_FENTRY, BTF | SLEEP, "trace"),
    ("fmod_ret.s+", c.BPF_PROG_TYPE_TRACING, c.BPF_MODIFY_RETURN, BTF | SLEEP, "trace"),
    ("fexit.s+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_FEXIT, BTF | SLEEP, "trace"),
    ("fsession+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_FSESSION, BTF, "trace"),
    ("fsession.s+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_FSESSION, BTF | SLEEP, "trace"),
    ("fsession.multi+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_FSESSION_MULTI, 0, "tracing_multi"),
    ("fsession.multi.s+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_FSESSION_MULTI, SLEEP, "tracing_multi"),
    ("fentry.multi+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_FENTRY_MULTI, 0, "tracing_multi"),
    ("fexit.multi+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_FEXIT_MULTI, 0, "tracing_multi"),
    ("fentry.multi.s+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_FENTRY_MULTI, SLEEP, "tracing_multi"),
    ("fexit.multi.s+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_FEXIT_MULTI, SLEEP, "tracing_multi"),
    ("freplace+", c.BPF_PROG_TYPE_EXT, 0, BTF, "trace"),
    ("lsm+", c.BPF_PROG_TYPE_LSM, c.BPF_LSM_MAC, BTF, "lsm"),
    ("lsm.s+", c.BPF_PROG_TYPE_LSM, c.BPF_LSM_MAC, BTF | SLEEP, "lsm"),
    ("lsm_cgroup+", c.BPF_PROG_TYPE_LSM, c.BPF_LSM_CGROUP, BTF, None),
    ("iter+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_ITER, BTF, "iter"),
    ("iter.s+", c.BPF_PROG_TYPE_TRACING, c.BPF_TRACE_ITER, BTF | SLEEP, "iter"),
    ("syscall", c.BPF_PROG_TYPE_SYSCALL, 0, SLEEP, None),
    ("xdp.frags/devmap", c.BPF_PROG_TYPE_XDP, c.BPF_XDP_DEVMAP, FRAGS, None),
    ("xdp/devmap", c.BPF_PROG_TYPE_XDP, c.BPF_XDP_DEVMAP, ATT, None),
    ("xdp.frags/cpumap", c.BPF_PROG_TYPE_XDP, c.BPF_XDP_CPUMAP, FRAGS, None),
    ("xdp/cpumap", c.BPF_PROG_TYPE_XDP, c.BPF_XDP_CPUMAP, ATT, None),
    ("xdp.frags", c.BPF_PROG_TYPE_XDP, c.BPF_XDP, FRAGS, None),
    ("xdp", c.BPF_PROG_TYPE_XDP, c.BPF_XDP, ATT | EXP_OPT, None),
    ("perf_event", c.BPF_PROG_TYPE_PERF_EVENT, 0, 0, None),
    ("lwt_in", c.BPF_PROG_TYPE_LWT_IN, 0, 0, None),
    ("lwt_out", c.BPF_PROG_TYPE_LWT_OUT, 0, 0, None),
    ("lwt_xmit", c.BPF_PROG_TYPE_LWT_XMIT, 0, 0, None),
    ("lwt_seg6local", c.BPF_PROG_TYPE_LWT_SEG6LOCAL, 0, 0, None),
    ("sockops", c.BPF_PROG_TYPE_SOCK_OPS, c.BPF_CGROUP_SOCK_OPS, ATT | EXP_OPT, None),
    ("sk_skb/stream_parser", c.BPF_PROG_TYPE_SK_SKB, c.BPF_SK_SKB_STREAM_PARSER, ATT | EXP_OPT, None),
    ("sk_skb/stream_verdict", c.BPF_PROG_TYPE_SK_SKB, c.BPF_SK_SKB_STREAM_VERDICT, ATT | EXP_OPT, None),
    ("sk_skb/verdict", c.BPF_PROG_TYPE_SK_SKB, c.BPF_SK_SKB_VERDICT, ATT | EXP_OPT, None),
    ("sk_skb", c.BPF_PROG_TYPE_SK_SKB, 0, 0, None),
    ("sk_msg", c.BPF_PROG_TYPE_SK_MSG, c.BPF_SK_MSG_VERDICT, ATT | EXP_OPT, None),
    ("lirc_mode2", c.BPF_PROG_TYPE_LIRC_MODE2, c.BPF_LIRC_MODE2, ATT | EXP_OPT, None),
    ("flow_dissector", c.BPF_PROG_TYPE_FLOW_DISSECTOR, c.BPF_FLOW_DISSECTOR, ATT | EXP_OPT, None),
    ("cgroup_skb/ingress", c.BPF_PROG_TYPE_CGROUP_SKB, c.BPF_CGROUP_INET_INGRESS, ATT | EXP_OPT, None),
    ("cgroup_skb/egress", c.BPF_PROG_TYPE_CGROUP_SKB, c.BPF_CGROUP_INET_EGRESS, ATT | EXP_OPT, None),
    ("cgroup/skb", c.BPF_PROG_TYPE_CGROUP_SKB, 0, 0, None),
    ("cgroup/sock_create", c.BPF_PROG_TYPE_CGROUP_SOCK, c.BPF_CGROUP_INET_SOCK_CREATE, ATT, None),
    ("cgroup/sock_release", c.BPF_PROG_TYPE_CGROUP_SOCK, c.BPF_CGROUP_INET_SOCK_RELEASE, ATT, None),
    ("cgroup/sock", c.BPF_PROG_TYPE_CGROUP_SOCK, c.BPF_CGROUP_INET_SOCK_CREATE, ATT | EXP_OPT, None),
    ("cgroup/post_bind4", c.BPF_PROG_TYPE_CGROUP_SOCK, c.BPF_CGROUP_INET4_POST_BIND, ATT, None),
    ("cgroup/post_bind6", c.BPF_PROG_TYPE_CGROUP_SOCK, c.BPF_CGROUP_INET6_POST_BIND, ATT, None),
    ("cgroup/bind4", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_INET4_BIND, ATT, None),
    ("cgroup/bind6", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_INET6_BIND, ATT, None),
    ("cgroup/connect4", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_INET4_CONNECT, ATT, None),
    ("cgroup/connect6", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_INET6_CONNECT, ATT, None),
    ("cgroup/connect_unix", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_UNIX_CONNECT, ATT, None),
    ("cgroup/sendmsg4", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_UDP4_SENDMSG, ATT, None),
    ("cgroup/sendmsg6", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_UDP6_SENDMSG, ATT, None),
    ("cgroup/sendmsg_unix", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_UNIX_SENDMSG, ATT, None),
    ("cgroup/recvmsg4", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_UDP4_RECVMSG, ATT, None),
    ("cgroup/recvmsg6", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_UDP6_RECVMSG, ATT, None),
    ("cgroup/recvmsg_unix", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_UNIX_RECVMSG, ATT, None),
    ("cgroup/getpeername4", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_INET4_GETPEERNAME, ATT, None),
    ("cgroup/getpeername6", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_INET6_GETPEERNAME, ATT, None),
    ("cgroup/getpeername_unix", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_UNIX_GETPEERNAME, ATT, None),
    ("cgroup/getsockname4", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_INET4_GETSOCKNAME, ATT, None),
    ("cgroup/getsockname6", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_INET6_GETSOCKNAME, ATT, None),
    ("cgroup/getsockname_unix", c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, c.BPF_CGROUP_UNIX_GETSOCKNAME, ATT, None),
    ("cgroup/sysctl", c.BPF_PROG_TYPE_CGROUP_SYSCTL, c.BPF_CGROUP_SYSCTL, ATT, None),
    ("cgroup/getsockopt", c.BPF_PROG_TYPE_CGROUP_SOCKOPT, c.BPF_CGROUP_GETSOCKOPT, ATT, None),
    ("cgroup/setsockopt", c.BPF_PROG_TYPE_CGROUP_SOCKOPT, c.BPF_CGROUP_SETSOCKOPT, ATT, None),
    ("cgroup/dev", c.BPF_PROG_TYPE_CGROUP_DEVICE, c.BPF_CGROUP_DEVICE, ATT | EXP_OPT, None),
    ("struct_ops+", c.BPF_PROG_TYPE_STRUCT_OPS, 0, 0, None),
    ("struct_ops.s+", c.BPF_PROG_TYPE_STRUCT_OPS, 0, SLEEP, None),
    ("sk_lookup", c.BPF_PROG_TYPE_SK_LOOKUP, c.BPF_SK_LOOKUP, ATT, None),
    ("netfilter", c.BPF_PROG_TYPE_NETFILTER, c.BPF_NETFILTER, 0, None),
)

# No name is there both with and without "+": a test holds that, so the order does not matter for finding a row.
_ROWS = {row[0]: row for row in _TABLE}
_definitions: dict[str, SectionDefinition] = {}


def definitions() -> tuple[SectionDefinition, ...]:
    """The whole table, in order."""
    return tuple(_definition(pattern) for pattern in _ROWS)


def _definition(pattern: str) -> SectionDefinition:
    found = _definitions.get(pattern)
    if found is None:
        found = _definitions[pattern] = SectionDefinition(*_ROWS[pattern])
    return found


def lookup(section: str) -> tuple[SectionDefinition, str] | None:
    """The row for a section name and the text after the first slash of a pattern that takes extras, or None.

    >>> lookup("kprobe/do_unlinkat")
    (<SectionDefinition 'kprobe+'>, 'do_unlinkat')
    """
    section = section.removeprefix("?")
    if section in _ROWS and section[-1] != "+":
        return _definition(section), ""
    name, _, extras = section.partition("/")
    pattern = name + "+"
    return (_definition(pattern), extras) if pattern in _ROWS else None
