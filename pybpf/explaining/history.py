"""Which kernel brought what: commands, types, attach types, flags of bpf(2), and the fields that came later.

A row is: the version; the commit that brought it, by its hash or, in quotation marks, by its subject; the names. A
field that is not here came together with its command, or nobody has found out.

Source: the history of include/uapi/linux/bpf.h (kernel commits as mirrored in github.com/libbpf/libbpf); hashes and
versions of the older ones as github.com/isovalent/ebpf-docs gives them (data/feature-versions.yaml and
docs/linux/syscall).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_ROWS = """
3.18 09756af46893:
    BPF_PROG_LOAD
3.18 99c55f7d47c0:
    BPF_MAP_CREATE
3.18 db20fd2b0108:
    BPF_MAP_LOOKUP_ELEM BPF_MAP_UPDATE_ELEM BPF_MAP_DELETE_ELEM BPF_MAP_GET_NEXT_KEY
3.19 0f8e4bd8a1fc:
    BPF_MAP_TYPE_HASH
3.19 28fbcfa08d8e:
    BPF_MAP_TYPE_ARRAY
3.19 ddd872bc3098:
    BPF_PROG_TYPE_SOCKET_FILTER
4.1 2541517c32be:
    BPF_PROG_TYPE_KPROBE BPF_PROG_LOAD.kern_version
4.1 94caee8c312d:
    BPF_PROG_TYPE_SCHED_ACT
4.1 96be4325f443:
    BPF_PROG_TYPE_SCHED_CLS
4.2 04fd61ab36ec:
    BPF_MAP_TYPE_PROG_ARRAY
4.3 ea317b267e9d:
    BPF_MAP_TYPE_PERF_EVENT_ARRAY
4.4 b2197755b263:
    BPF_OBJ_PIN BPF_OBJ_GET
4.6 6c9059817432:
    BPF_F_NO_PREALLOC BPF_MAP_CREATE.map_flags
4.6 824bd0ce6c7c:
    BPF_MAP_TYPE_PERCPU_HASH
4.6 a10423b87a7e:
    BPF_MAP_TYPE_PERCPU_ARRAY
4.6 d5a3b1f69186:
    BPF_MAP_TYPE_STACK_TRACE
4.7 98b5c2c65c29:
    BPF_PROG_TYPE_TRACEPOINT
4.8 4ed8ec521ed5:
    BPF_MAP_TYPE_CGROUP_ARRAY
4.8 6a773a15a1e8:
    BPF_PROG_TYPE_XDP
4.9 0515e5999a46:
    BPF_PROG_TYPE_PERF_EVENT
4.10 0e33661de493:
    BPF_PROG_TYPE_CGROUP_SKB BPF_CGROUP_INET_INGRESS BPF_CGROUP_INET_EGRESS
4.10 29ba732acbee:
    BPF_MAP_TYPE_LRU_HASH BPF_F_NO_COMMON_LRU
4.10 3a0af8fd61f9:
    BPF_PROG_TYPE_LWT_IN BPF_PROG_TYPE_LWT_OUT BPF_PROG_TYPE_LWT_XMIT
4.10 610236587600:
    BPF_PROG_TYPE_CGROUP_SOCK BPF_CGROUP_INET_SOCK_CREATE
4.10 7f677633379b:
    BPF_F_ALLOW_OVERRIDE
4.10 8f8449384ec3:
    BPF_MAP_TYPE_LRU_PERCPU_HASH
4.10 f4324551489e:
    BPF_PROG_ATTACH BPF_PROG_DETACH
4.11 b95a5c4db09b:
    BPF_MAP_TYPE_LPM_TRIE
4.12 1cf1cae963c2:
    BPF_PROG_TEST_RUN
4.12 56f668dfe00d:
    BPF_MAP_TYPE_ARRAY_OF_MAPS BPF_MAP_CREATE.inner_map_fd
4.12 bcc6b1b7ebf8:
    BPF_MAP_TYPE_HASH_OF_MAPS
4.12 e07b98d9bffe:
    BPF_F_STRICT_ALIGNMENT BPF_PROG_LOAD.prog_flags
4.13 1e2709769086:
    BPF_OBJ_GET_INFO_BY_FD
4.13 34ad5580f8f9:
    BPF_PROG_GET_NEXT_ID BPF_MAP_GET_NEXT_ID
4.13 40304b2a1567:
    BPF_PROG_TYPE_SOCK_OPS BPF_CGROUP_SOCK_OPS
4.13 b16d9aa4c2b9:
    BPF_PROG_GET_FD_BY_ID
4.13 bd5f5f4ecb78:
    BPF_MAP_GET_FD_BY_ID
4.14 174a79ff9515:
    BPF_MAP_TYPE_SOCKMAP
4.14 464bc0fd6273:
    BPF_SK_SKB_STREAM_PARSER BPF_SK_SKB_STREAM_VERDICT
4.14 546ac1ffb70d:
    BPF_MAP_TYPE_DEVMAP
4.14 96eabe7a40aa:
    BPF_F_NUMA_NODE BPF_MAP_CREATE.numa_node
4.14 b005fd189cec:
    BPF_PROG_TYPE_SK_SKB
4.15 067cae47771c:
    BPF_PROG_LOAD.prog_name
4.15 1f6f4cb7ba21:
    BPF_PROG_LOAD.prog_ifindex
4.15 324bda9e6c5a:
    BPF_F_ALLOW_MULTI
4.15 468e2f64d220:
    BPF_PROG_QUERY BPF_F_QUERY_EFFECTIVE
4.15 6710e1126934:
    BPF_MAP_TYPE_CPUMAP
4.15 6e71b04a8224:
    BPF_F_RDONLY BPF_F_WRONLY
4.15 ad5b177bd73f:
    BPF_MAP_CREATE.map_name
4.15 ebc614f68736:
    BPF_PROG_TYPE_CGROUP_DEVICE BPF_CGROUP_DEVICE
4.16 a38845729ea3:
    BPF_MAP_CREATE.map_ifindex
4.17 4f738adba30a:
    BPF_PROG_TYPE_SK_MSG BPF_SK_MSG_VERDICT
4.17 4fbac77d2d09:
    BPF_PROG_TYPE_CGROUP_SOCK_ADDR BPF_CGROUP_INET4_BIND BPF_CGROUP_INET6_BIND
4.17 5e43f899b03a:
    BPF_PROG_LOAD.expected_attach_type
4.17 615755a77b24:
    BPF_F_STACK_BUILD_ID
4.17 aac3fc320d94:
    BPF_CGROUP_INET4_POST_BIND BPF_CGROUP_INET6_POST_BIND
4.17 c4f6699dfcb8:
    BPF_RAW_TRACEPOINT_OPEN BPF_PROG_TYPE_RAW_TRACEPOINT
4.17 d74bad4e74ee:
    BPF_CGROUP_INET4_CONNECT BPF_CGROUP_INET6_CONNECT
4.18 004d4b274e2a:
    BPF_PROG_TYPE_LWT_SEG6LOCAL
4.18 1cedee13d25a:
    BPF_CGROUP_UDP4_SENDMSG BPF_CGROUP_UDP6_SENDMSG
4.18 41bdc4b40ed6:
    BPF_TASK_FD_QUERY
4.18 78958fca7ead:
    BPF_BTF_GET_FD_BY_ID
4.18 81110384441a:
    BPF_MAP_TYPE_SOCKHASH
4.18 a26ca7c982cb:
    BPF_MAP_CREATE.btf_fd BPF_MAP_CREATE.btf_key_type_id BPF_MAP_CREATE.btf_value_type_id
4.18 f4364dcfc86d:
    BPF_PROG_TYPE_LIRC_MODE2 BPF_LIRC_MODE2
4.18 f56a653c1fd1:
    BPF_BTF_LOAD
4.18 fbfc504a24f5:
    BPF_MAP_TYPE_XSKMAP
4.19 2dbb9b9e6df6:
    BPF_PROG_TYPE_SK_REUSEPORT
4.19 5dc4c4b7d4e8:
    BPF_MAP_TYPE_REUSEPORT_SOCKARRAY
4.19 de9cbbaadba5:
    BPF_MAP_TYPE_CGROUP_STORAGE
4.20 b741f1630346:
    BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE
4.20 bd513cd08f10:
    BPF_MAP_LOOKUP_AND_DELETE_ELEM
4.20 d58e468b1112:
    BPF_PROG_TYPE_FLOW_DISSECTOR BPF_FLOW_DISSECTOR
4.20 f1a2e44a3aec:
    BPF_MAP_TYPE_QUEUE BPF_MAP_TYPE_STACK
5.0 838e96904ff3:
    BPF_PROG_LOAD.prog_btf_fd BPF_PROG_LOAD.func_info_rec_size BPF_PROG_LOAD.func_info BPF_PROG_LOAD.func_info_cnt
5.0 96b3b6c9091d:
    BPF_F_ZERO_SEED
5.0 c454a46b5efd:
    BPF_PROG_LOAD.line_info_rec_size BPF_PROG_LOAD.line_info BPF_PROG_LOAD.line_info_cnt
5.0 e9ee9efc0d17:
    BPF_F_ANY_ALIGNMENT
5.1 96049f3afd50:
    BPF_F_LOCK
5.2 591fe9888d78:
    BPF_F_RDONLY_PROG BPF_F_WRONLY_PROG
5.2 6ac99e8f23d4:
    BPF_MAP_TYPE_SK_STORAGE
5.2 7b146cebe30c:
    BPF_PROG_TYPE_CGROUP_SYSCTL BPF_CGROUP_SYSCTL
5.2 87df15de441b:
    BPF_MAP_FREEZE
5.2 983695fa6765:
    BPF_CGROUP_UDP4_RECVMSG BPF_CGROUP_UDP6_RECVMSG
5.2 9df1c28bb752:
    BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE
5.2 b0b9395d865e:
    BPF_PROG_TEST_RUN.ctx_size_in BPF_PROG_TEST_RUN.ctx_size_out BPF_PROG_TEST_RUN.ctx_in BPF_PROG_TEST_RUN.ctx_out
5.3 0d01da6afc54:
    BPF_PROG_TYPE_CGROUP_SOCKOPT BPF_CGROUP_GETSOCKOPT BPF_CGROUP_SETSOCKOPT
5.3 c240eff63a1c:
    BPF_F_TEST_RND_HI32
5.4 10d274e880eb:
    BPF_F_TEST_STATE_FREQ
5.4 1b9ed84ecf26:
    BPF_BTF_GET_NEXT_ID
5.4 6f9d451ab1a3:
    BPF_MAP_TYPE_DEVMAP_HASH
5.4 8f51dfc73bf1:
    BPF_F_CLONE
5.5 ccfe29eb29c2:
    BPF_PROG_LOAD.attach_btf_id
5.5 f1b9509c2fb0:
    BPF_PROG_TYPE_TRACING BPF_TRACE_RAW_TP
5.5 fc9702273e2e:
    BPF_F_MMAPABLE
5.5 fec56f5890d9:
    BPF_TRACE_FENTRY BPF_TRACE_FEXIT
5.5 'libbpf: Add support for attaching BPF programs to other BPF programs':
    BPF_PROG_LOAD.attach_prog_fd
5.6 057996380a42:
    BPF_MAP_LOOKUP_AND_DELETE_BATCH
5.6 27ae7997a661:
    BPF_PROG_TYPE_STRUCT_OPS
5.6 7dd68b3279f1:
    BPF_F_REPLACE
5.6 85d33df357b6:
    BPF_MAP_TYPE_STRUCT_OPS BPF_MAP_CREATE.btf_vmlinux_value_type_id
5.6 aa2e93b8e58e:
    BPF_MAP_UPDATE_BATCH BPF_MAP_DELETE_BATCH
5.6 be8704ff07d2:
    BPF_PROG_TYPE_EXT
5.6 'bpf: Support replacing cgroup-bpf program in MULTI mode':
    BPF_PROG_ATTACH.replace_bpf_fd BPF_PROG_DETACH.replace_bpf_fd
5.6 cb4d03ab499d:
    BPF_MAP_LOOKUP_BATCH
5.7 0c991ebc8c69:
    BPF_LINK_UPDATE
5.7 ae24082331d9:
    BPF_MODIFY_RETURN
5.7 af6eea57437a:
    BPF_LINK_CREATE
5.7 fc611f47f218:
    BPF_PROG_TYPE_LSM BPF_LSM_MAC
5.8 15d83c4d7cef:
    BPF_TRACE_ITER
5.8 1b66d253610c:
    BPF_CGROUP_INET4_GETPEERNAME BPF_CGROUP_INET6_GETPEERNAME BPF_CGROUP_INET4_GETSOCKNAME
    BPF_CGROUP_INET6_GETSOCKNAME
5.8 2d602c8cf40d:
    BPF_LINK_GET_FD_BY_ID BPF_LINK_GET_NEXT_ID
5.8 457f44363a88:
    BPF_MAP_TYPE_RINGBUF
5.8 ac51d99bf81c:
    BPF_ITER_CREATE
5.8 d46edd671a14:
    BPF_ENABLE_STATS
5.8 fbee97feed9b:
    BPF_XDP_DEVMAP
5.9 73b11c2ab072:
    BPF_LINK_DETACH
5.9 9216477449f3:
    BPF_XDP_CPUMAP
5.9 aa8d3a716b59:
    BPF_XDP BPF_LINK_CREATE.target_ifindex
5.9 'bpf: Change uapi for bpf iterator map elements':
    BPF_LINK_CREATE.iter_info BPF_LINK_CREATE.iter_info_len
5.9 e9ddbb7707ff:
    BPF_PROG_TYPE_SK_LOOKUP BPF_SK_LOOKUP
5.9 f5836749c9c0:
    BPF_CGROUP_INET_SOCK_RELEASE
5.10 1b4d60ec162f:
    BPF_F_TEST_RUN_ON_CPU BPF_PROG_TEST_RUN.flags BPF_PROG_TEST_RUN.cpu
5.10 1e6c62a88215:
    BPF_F_SLEEPABLE
5.10 4a1e7c0c63e0:
    BPF_LINK_CREATE.target_btf_id
5.10 4a8f87e60f6d:
    BPF_F_INNER_MAP
5.10 792caccc4526:
    BPF_F_PRESERVE_ELEMS
5.10 8ea636848aca:
    BPF_MAP_TYPE_INODE_STORAGE
5.10 ef15314aa5de:
    BPF_PROG_BIND_MAP
5.11 290248a5b7d8:
    BPF_PROG_LOAD.attach_btf_obj_fd
5.11 4cf1bc1f1045:
    BPF_MAP_TYPE_TASK_STORAGE
5.13 a7ba4558e69a:
    BPF_SK_SKB_VERDICT
5.14 387544bfa291:
    BPF_PROG_LOAD.fd_array
5.14 79a7f8bdb159:
    BPF_PROG_TYPE_SYSCALL
5.14 d5e4ddaeb6ab:
    BPF_SK_REUSEPORT_SELECT BPF_SK_REUSEPORT_SELECT_OR_MIGRATE
5.15 b89fbfbb854c:
    BPF_PERF_EVENT
5.15 'bpf: Allow to specify user-provided bpf_cookie for BPF perf links':
    BPF_LINK_CREATE.perf_event.bpf_cookie
5.16 9330986c0300:
    BPF_MAP_TYPE_BLOOM_FILTER BPF_MAP_CREATE.map_extra
5.17 fbd94c7afcf9:
    BPF_PROG_LOAD.core_relo_cnt BPF_PROG_LOAD.core_relos BPF_PROG_LOAD.core_relo_rec_size
5.18 0dcac2725406:
    BPF_TRACE_KPROBE_MULTI BPF_F_KPROBE_MULTI_RETURN
5.18 b530e9e1063e:
    BPF_F_TEST_XDP_LIVE_FRAMES BPF_PROG_TEST_RUN.batch_size
5.18 'bpf: Add cookie support to programs attached with kprobe multi link':
    BPF_LINK_CREATE.kprobe_multi.cookies
5.18 'bpf: Add multi kprobe link':
    BPF_LINK_CREATE.kprobe_multi.flags BPF_LINK_CREATE.kprobe_multi.cnt BPF_LINK_CREATE.kprobe_multi.syms
    BPF_LINK_CREATE.kprobe_multi.addrs
5.18 c2f2cdbeffda:
    BPF_F_XDP_HAS_FRAGS
5.19 'bpf, x86: Attach a cookie to fentry/fexit/fmod_ret/lsm':
    BPF_LINK_CREATE.tracing.target_btf_id BPF_LINK_CREATE.tracing.cookie
6.0 69fd337a975c:
    BPF_LSM_CGROUP
6.0 'bpf: implement BPF_PROG_QUERY for BPF_LSM_CGROUP':
    BPF_PROG_QUERY.prog_attach_flags
6.1 583c1f420173:
    BPF_MAP_TYPE_USER_RINGBUF
6.2 c4bcfb38a95e:
    BPF_MAP_TYPE_CGRP_STORAGE
6.3 'bpf: Introduce device-bound XDP programs':
    BPF_F_XDP_DEV_BOUND_ONLY
6.4 47a71c1f9af0:
    BPF_PROG_LOAD.log_true_size
6.4 68b04864ca42:
    BPF_F_LINK BPF_LINK_CREATE.map_fd
6.4 84601d6ee68a:
    BPF_PROG_TYPE_NETFILTER
6.4 'bpf: Add log_true_size output field to return necessary log buffer size':
    BPF_BTF_LOAD.btf_log_true_size
6.4 'bpf: Create links for BPF struct_ops maps':
    BPF_STRUCT_OPS
6.4 'bpf: Update the struct_ops of a bpf_link':
    BPF_LINK_UPDATE.new_map_fd BPF_LINK_UPDATE.old_map_fd
6.4 'bpf: add bpf_link support for BPF_NETFILTER programs':
    BPF_LINK_CREATE.netfilter.pf BPF_LINK_CREATE.netfilter.hooknum BPF_LINK_CREATE.netfilter.priority
    BPF_LINK_CREATE.netfilter.flags
6.5 'bpf: Support O_PATH FDs in BPF_OBJ_PIN and BPF_OBJ_GET commands':
    BPF_OBJ_PIN.path_fd BPF_OBJ_GET.path_fd
6.5 'bpf: add bpf_link support for BPF_NETFILTER programs':
    BPF_NETFILTER
6.5 cb8edce28073:
    BPF_F_PATH_FD
6.6 'bpf: Add cookies support for uprobe_multi link':
    BPF_LINK_CREATE.uprobe_multi.cookies
6.6 'bpf: Add fd-based tcx multi-prog infra with link support':
    BPF_LINK_CREATE.tcx.relative_fd BPF_LINK_CREATE.tcx.relative_id BPF_LINK_CREATE.tcx.expected_revision
6.6 'bpf: Add generic attach/detach/query API for multi-progs':
    BPF_F_BEFORE BPF_F_AFTER BPF_F_ID BPF_PROG_ATTACH.target_ifindex BPF_PROG_ATTACH.relative_fd
    BPF_PROG_ATTACH.relative_id BPF_PROG_ATTACH.expected_revision BPF_PROG_DETACH.target_ifindex
    BPF_PROG_DETACH.relative_fd BPF_PROG_DETACH.relative_id BPF_PROG_DETACH.expected_revision
    BPF_PROG_QUERY.target_ifindex BPF_PROG_QUERY.count BPF_PROG_QUERY.link_ids BPF_PROG_QUERY.link_attach_flags
    BPF_PROG_QUERY.revision
6.6 'bpf: Add multi uprobe link':
    BPF_TRACE_UPROBE_MULTI BPF_LINK_CREATE.uprobe_multi.path BPF_LINK_CREATE.uprobe_multi.offsets
    BPF_LINK_CREATE.uprobe_multi.ref_ctr_offsets BPF_LINK_CREATE.uprobe_multi.cnt BPF_LINK_CREATE.uprobe_multi.flags
6.6 'bpf: Add pid filter support for uprobe_multi link':
    BPF_LINK_CREATE.uprobe_multi.pid
6.6 e420bed02507:
    BPF_TCX_INGRESS BPF_TCX_EGRESS
6.6 'netfilter: bpf: Support BPF_F_NETFILTER_IP_DEFRAG in netfilter link':
    BPF_F_NETFILTER_IP_DEFRAG
6.7 35dfaad7188c:
    BPF_NETKIT_PRIMARY BPF_NETKIT_PEER
6.7 'bpf: Implement cgroup sockaddr hooks for unix sockets':
    BPF_CGROUP_UNIX_CONNECT BPF_CGROUP_UNIX_SENDMSG BPF_CGROUP_UNIX_RECVMSG BPF_CGROUP_UNIX_GETPEERNAME
    BPF_CGROUP_UNIX_GETSOCKNAME
6.7 'netkit, bpf: Add bpf programmable net device':
    BPF_LINK_CREATE.netkit.relative_fd BPF_LINK_CREATE.netkit.relative_id BPF_LINK_CREATE.netkit.expected_revision
6.8 'bpf: rename BPF_F_TEST_SANITY_STRICT to BPF_F_TEST_REG_INVARIANTS':
    BPF_F_TEST_REG_INVARIANTS
6.9 317460317a02:
    BPF_MAP_TYPE_ARENA BPF_F_SEGV_ON_FAULT BPF_F_NO_USER_CONV
6.9 35f96de04127:
    BPF_TOKEN_CREATE
6.9 9ea7c4bf17e3:
    BPF_BTF_LOAD.btf_flags
6.9 a177fc2bf6fd:
    BPF_F_TOKEN_FD
6.9 'bpf: add BPF token support to BPF_BTF_LOAD command':
    BPF_BTF_LOAD.btf_token_fd
6.9 'bpf: add BPF token support to BPF_MAP_CREATE command':
    BPF_MAP_CREATE.map_token_fd
6.9 'bpf: add BPF token support to BPF_PROG_LOAD command':
    BPF_PROG_LOAD.prog_token_fd
6.9 fcc2c1fb0651:
    BPF_F_VTYPE_BTF_OBJ_FD BPF_MAP_CREATE.value_type_btf_obj_fd
6.10 535a3692ba72:
    BPF_TRACE_KPROBE_SESSION
6.10 'bpf: support BPF cookie in raw tracepoint (raw_tp, tp_btf) programs':
    BPF_RAW_TRACEPOINT_OPEN.cookie
6.11 'bpf: Add CHECKSUM_COMPLETE to bpf test progs':
    BPF_F_TEST_SKB_CHECKSUM_COMPLETE
6.13 'bpf: Add support for uprobe multi session attach':
    BPF_TRACE_UPROBE_SESSION
6.14 4d3ae294f900:
    BPF_PROG_LOAD.fd_array_cnt
6.15 'bpf: Allow pre-ordering for bpf cgroup progs':
    BPF_F_PREORDER
6.15 'bpf: BPF token support for BPF_BTF_GET_FD_BY_ID':
    BPF_BTF_GET_FD_BY_ID.fd_by_id_token_fd
6.17 'bpf: Implement mprog API on top of existing cgroup progs':
    BPF_LINK_CREATE.cgroup.relative_fd BPF_LINK_CREATE.cgroup.relative_id BPF_LINK_CREATE.cgroup.expected_revision
6.17 'bpf: Introduce BPF standard streams':
    BPF_PROG_STREAM_READ_BY_FD
6.18 'bpf: Implement exclusive map creation':
    BPF_MAP_CREATE.excl_prog_hash BPF_MAP_CREATE.excl_prog_hash_size
6.18 'bpf: Implement signature verification for BPF programs':
    BPF_PROG_LOAD.signature BPF_PROG_LOAD.signature_size BPF_PROG_LOAD.keyring_id
6.19 b4ce5923e780:
    BPF_MAP_TYPE_INSN_ARRAY
6.19 'bpf: Add overwrite mode for BPF ring buffer':
    BPF_F_RB_OVERWRITE
7.0 'bpf: Introduce BPF_F_CPU and BPF_F_ALL_CPUS flags':
    BPF_F_CPU BPF_F_ALL_CPUS
7.0 'bpf: Support associating BPF program with struct_ops':
    BPF_PROG_ASSOC_STRUCT_OPS
7.0 'bpf: add fsession support':
    BPF_TRACE_FSESSION
7.2 'bpf: Add multi tracing attach types':
    BPF_TRACE_FENTRY_MULTI BPF_TRACE_FEXIT_MULTI
7.2 'bpf: Add support for tracing multi link':
    BPF_LINK_CREATE.tracing_multi.ids BPF_LINK_CREATE.tracing_multi.cnt
7.2 'bpf: Add support for tracing_multi link cookies':
    BPF_LINK_CREATE.tracing_multi.cookies
7.2 'bpf: Add support for tracing_multi link session':
    BPF_TRACE_FSESSION_MULTI
7.2 'bpf: Implement resizable hashmap basic functions':
    BPF_MAP_TYPE_RHASH
"""


class Since:
    """Where something is from.

    Attributes:
        version: the kernel, "5.8".
        commit: its hash or its subject.
    """

    __slots__ = ("commit", "version")

    def __init__(self, version: str, commit: str) -> None:
        self.version = version
        self.commit = commit

    def __repr__(self) -> str:
        return f"<Since Linux {self.version}: {self.commit}>"


_table: dict[str, Since] = {}


def table() -> Mapping[str, Since]:
    """Name of a command, type or flag, or ``BPF_PROG_LOAD.fd_array`` for a field -> where it is from."""
    if not _table:
        found: dict[str, Since] = {}
        since = Since("", "")
        for line in _ROWS.strip().splitlines():
            if line[0] == " ":
                found.update((name, since) for name in line.split())
            else:
                version, _, commit = line.rstrip(":").partition(" ")
                since = Since(version, commit.strip("'"))
        _table.update(found)
    return _table
