"""Links: attaching programs, one module for each way.

`attach(program)` goes by the program's section. Every other function takes the program first and its target next, and
gives a `Link` (or `Links`), which detaches when it is closed.
"""

from __future__ import annotations

from pybpf.lazy import lazy_names
from pybpf.links.base import Attachment, Link, Links, PerfLink, iter_links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.attached import Attached, AttachedProgram, query
    from pybpf.links.auto import attach, auto_attaches
    from pybpf.links.cgroup import attach_cgroup
    from pybpf.links.direct import DirectAttachment
    from pybpf.links.iter import IterLink, attach_iter
    from pybpf.links.kprobe import attach_kprobe, attach_kretprobe, attach_kretsyscall, attach_ksyscall
    from pybpf.links.kprobe_multi import attach_kprobe_multi
    from pybpf.links.lirc import attach_lirc
    from pybpf.links.many import ManyLink
    from pybpf.links.netfilter import attach_netfilter
    from pybpf.links.netns import attach_netns
    from pybpf.links.perf_event import attach_breakpoint, attach_perf_event, attach_perf_fd
    from pybpf.links.raw_tracepoint import attach_raw_tracepoint
    from pybpf.links.route import RouteAttachment, attach_lwt
    from pybpf.links.socket import SocketAttachment, attach_reuseport, attach_socket_filter
    from pybpf.links.sockmap import attach_sockmap
    from pybpf.links.struct_ops import StructOpsLink, attach_struct_ops
    from pybpf.links.tc import (
        TcFilter,
        TcFilterInfo,
        add_clsact,
        attach_tc,
        clear_tc,
        has_clsact,
        remove_clsact,
        tc_filters,
    )
    from pybpf.links.tcx import attach_netkit, attach_tcx
    from pybpf.links.trace import attach_freplace, attach_trace
    from pybpf.links.tracepoint import attach_tracepoint
    from pybpf.links.tracing_multi import attach_tracing_multi
    from pybpf.links.uprobe import attach_uprobe, attach_uretprobe
    from pybpf.links.uprobe_multi import attach_uprobe_multi
    from pybpf.links.usdt import UsdtLink, attach_usdt
    from pybpf.links.xdp import attach_xdp
    from pybpf.links.xdp_features import XDPAbilities, xdp_features
    from pybpf.links.xdp_netlink import NetlinkXDP, XDPStatus, xdp_status

_HOME = {
    "Attached": "attached",
    "AttachedProgram": "attached",
    "DirectAttachment": "direct",
    "IterLink": "iter",
    "ManyLink": "many",
    "NetlinkXDP": "xdp_netlink",
    "RouteAttachment": "route",
    "SocketAttachment": "socket",
    "StructOpsLink": "struct_ops",
    "TcFilter": "tc",
    "TcFilterInfo": "tc",
    "UsdtLink": "usdt",
    "XDPAbilities": "xdp_features",
    "XDPStatus": "xdp_netlink",
    "add_clsact": "tc",
    "attach": "auto",
    "attach_breakpoint": "perf_event",
    "attach_cgroup": "cgroup",
    "attach_freplace": "trace",
    "attach_iter": "iter",
    "attach_kprobe": "kprobe",
    "attach_kprobe_multi": "kprobe_multi",
    "attach_kretprobe": "kprobe",
    "attach_kretsyscall": "kprobe",
    "attach_ksyscall": "kprobe",
    "attach_lirc": "lirc",
    "attach_lwt": "route",
    "attach_netfilter": "netfilter",
    "attach_netkit": "tcx",
    "attach_netns": "netns",
    "attach_perf_event": "perf_event",
    "attach_perf_fd": "perf_event",
    "attach_raw_tracepoint": "raw_tracepoint",
    "attach_reuseport": "socket",
    "attach_socket_filter": "socket",
    "attach_sockmap": "sockmap",
    "attach_struct_ops": "struct_ops",
    "attach_tc": "tc",
    "attach_tcx": "tcx",
    "attach_trace": "trace",
    "attach_tracepoint": "tracepoint",
    "attach_tracing_multi": "tracing_multi",
    "attach_uprobe": "uprobe",
    "attach_uprobe_multi": "uprobe_multi",
    "attach_uretprobe": "uprobe",
    "attach_usdt": "usdt",
    "attach_xdp": "xdp",
    "auto_attaches": "auto",
    "clear_tc": "tc",
    "has_clsact": "tc",
    "query": "attached",
    "remove_clsact": "tc",
    "tc_filters": "tc",
    "xdp_features": "xdp_features",
    "xdp_status": "xdp_netlink",
}

__all__ = [
    "Attached",
    "AttachedProgram",
    "Attachment",
    "DirectAttachment",
    "IterLink",
    "Link",
    "Links",
    "ManyLink",
    "NetlinkXDP",
    "PerfLink",
    "RouteAttachment",
    "SocketAttachment",
    "StructOpsLink",
    "TcFilter",
    "TcFilterInfo",
    "UsdtLink",
    "XDPAbilities",
    "XDPStatus",
    "add_clsact",
    "attach",
    "attach_breakpoint",
    "attach_cgroup",
    "attach_freplace",
    "attach_iter",
    "attach_kprobe",
    "attach_kprobe_multi",
    "attach_kretprobe",
    "attach_kretsyscall",
    "attach_ksyscall",
    "attach_lirc",
    "attach_lwt",
    "attach_netfilter",
    "attach_netkit",
    "attach_netns",
    "attach_perf_event",
    "attach_perf_fd",
    "attach_raw_tracepoint",
    "attach_reuseport",
    "attach_socket_filter",
    "attach_sockmap",
    "attach_struct_ops",
    "attach_tc",
    "attach_tcx",
    "attach_trace",
    "attach_tracepoint",
    "attach_tracing_multi",
    "attach_uprobe",
    "attach_uprobe_multi",
    "attach_uretprobe",
    "attach_usdt",
    "attach_xdp",
    "auto_attaches",
    "clear_tc",
    "has_clsact",
    "iter_links",
    "query",
    "remove_clsact",
    "tc_filters",
    "xdp_features",
    "xdp_status",
]


if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = lazy_names(globals(), _HOME)
