"""A link that came from the kernel (a pin, an id) in words: its kind and its target."""

from __future__ import annotations

from pybpf import constants as c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall import LinkInfo

_PERF_KINDS = {
    c.BPF_PERF_EVENT_UPROBE: "uprobe",
    c.BPF_PERF_EVENT_URETPROBE: "uretprobe",
    c.BPF_PERF_EVENT_KPROBE: "kprobe",
    c.BPF_PERF_EVENT_KRETPROBE: "kretprobe",
    c.BPF_PERF_EVENT_TRACEPOINT: "tracepoint",
    c.BPF_PERF_EVENT_EVENT: "perf_event",
}
_FAMILIES = {2: "ipv4", 10: "ipv6"}
_HOOKS = ("pre_routing", "local_in", "forward", "local_out", "post_routing")


def kind_of(info: LinkInfo) -> str:
    """The way of attaching: ``"tracepoint"``; the link's type where that says no more."""
    if info.type == c.BPF_LINK_TYPE_PERF_EVENT:
        return _PERF_KINDS.get(info.perf_type, "perf_event")
    name = c.LINK_TYPE_NAMES[info.type] if info.type < len(c.LINK_TYPE_NAMES) else None
    return name or f"link type {info.type}"


def target_of(info: LinkInfo) -> str:
    """What it is attached to, as far as the kernel tells; may be empty."""
    teller = _TELLERS.get(kind_of(info))
    return teller(info) if teller is not None else ""


def hook_name(attach_type: int) -> str:
    """The name of an attach type: ``"tcx_ingress"``."""
    name = c.ATTACH_TYPE_NAMES[attach_type] if 0 <= attach_type < len(c.ATTACH_TYPE_NAMES) else None
    return name or f"attach type {attach_type}"


def _interface(info: LinkInfo) -> str:
    from pybpf.links.targets import interface_name

    return interface_name(info.ifindex)


def _netfilter(info: LinkInfo) -> str:
    family = _FAMILIES.get(info.pf, f"family {info.pf}")
    hook = _HOOKS[info.hooknum] if info.hooknum < len(_HOOKS) else f"hook {info.hooknum}"
    return f"{family} {hook} priority {info.priority}"


_TELLERS = {
    "tracepoint": lambda info: info.tp_name,
    "raw_tracepoint": lambda info: info.tp_name,
    "kprobe": lambda info: f"{info.func_name or hex(info.addr)}+{info.offset:#x}",
    "kretprobe": lambda info: info.func_name or hex(info.addr),
    "uprobe": lambda info: f"{info.file_name}:{info.offset:#x}",
    "uretprobe": lambda info: f"{info.file_name}:{info.offset:#x}",
    "perf_event": lambda info: f"{info.event_type}:{info.config:#x}" if info.perf_type else "",  # told since Linux 6.6
    "tracing": lambda info: f"{hook_name(info.attach_type)} of type {info.target_btf_id}",
    "cgroup": lambda info: f"{hook_name(info.attach_type)} of cgroup {info.cgroup_id}",
    "iter": lambda info: info.target_name,
    "netns": lambda info: f"{hook_name(info.attach_type)} of netns:[{info.netns_ino}]",
    "xdp": _interface,
    "tcx": lambda info: f"{_interface(info)} {hook_name(info.attach_type)}",
    "netkit": lambda info: f"{_interface(info)} {hook_name(info.attach_type)}",
    "kprobe_multi": lambda info: f"{info.count} functions",
    "uprobe_multi": lambda info: f"{info.path}:{info.count} places",
    "struct_ops": lambda info: f"map {info.map_id}",
    "sockmap": lambda info: f"map {info.map_id} {hook_name(info.attach_type)}",
    "netfilter": _netfilter,
}
"""Kind -> the words for its target."""
