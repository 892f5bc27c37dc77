"""What each command does and what each field means: tables, read when something is explained.

A row of `_FIELDS` is: the field (``COMMAND.field`` where a name means something of its own in one command), its kind,
and its meaning. The kind says how the value is put into words (`pybpf.explaining.fields`):

    number   as it stands               id      of an object of the kernel; 0 is none
    fd       a descriptor; 0 is none    pid     of a process; -1 is all
    enum X   a constant whose name begins with X
    flags X  bits, named as in the enum X of `pybpf.abi`
    text     a string in memory         data    bytes in memory; blob: of which only the length is told
    insns    instructions               log     what the kernel writes as text
    netlink  a netlink message
    u32s u64s names                     arrays in memory
    ifindex  a network interface        name    a name inside the attr
    kernel-type  id of a type in the kernel's BTF; event: a perf event by type and config

Source: bpf(2), include/uapi/linux/bpf.h, perf_event_open(2), include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

COMMANDS = {
    "BPF_MAP_CREATE": "make a map",
    "BPF_MAP_LOOKUP_ELEM": "read an element of a map",
    "BPF_MAP_UPDATE_ELEM": "write an element of a map",
    "BPF_MAP_DELETE_ELEM": "delete an element of a map",
    "BPF_MAP_GET_NEXT_KEY": "find the key after a key",
    "BPF_PROG_LOAD": "verify a program and load it",
    "BPF_OBJ_PIN": "give an object a path in a BPF file system, so that it outlives this process",
    "BPF_OBJ_GET": "open an object by its path in a BPF file system",
    "BPF_PROG_ATTACH": "attach a program without a link",
    "BPF_PROG_DETACH": "detach a program that has no link",
    "BPF_PROG_TEST_RUN": "run a program on given input",
    "BPF_PROG_GET_NEXT_ID": "find the program with the next higher id",
    "BPF_MAP_GET_NEXT_ID": "find the map with the next higher id",
    "BPF_PROG_GET_FD_BY_ID": "open a program by its id",
    "BPF_MAP_GET_FD_BY_ID": "open a map by its id",
    "BPF_OBJ_GET_INFO_BY_FD": "ask what the kernel knows of an object",
    "BPF_PROG_QUERY": "ask which programs are attached somewhere",
    "BPF_RAW_TRACEPOINT_OPEN": "attach a program to a raw tracepoint, or to what it was loaded for",
    "BPF_BTF_LOAD": "give type information to the kernel",
    "BPF_BTF_GET_FD_BY_ID": "open type information by its id",
    "BPF_TASK_FD_QUERY": "ask which program hangs on a perf event of a process",
    "BPF_MAP_LOOKUP_AND_DELETE_ELEM": "take an element out of a map",
    "BPF_MAP_FREEZE": "let nobody write to a map through bpf() any more",
    "BPF_BTF_GET_NEXT_ID": "find the type information with the next higher id",
    "BPF_MAP_LOOKUP_BATCH": "read many elements of a map",
    "BPF_MAP_LOOKUP_AND_DELETE_BATCH": "take many elements out of a map",
    "BPF_MAP_UPDATE_BATCH": "write many elements of a map",
    "BPF_MAP_DELETE_BATCH": "delete many elements of a map",
    "BPF_LINK_CREATE": "attach a program; it stays attached as long as the link is open",
    "BPF_LINK_UPDATE": "put another program into a link",
    "BPF_LINK_GET_FD_BY_ID": "open a link by its id",
    "BPF_LINK_GET_NEXT_ID": "find the link with the next higher id",
    "BPF_ENABLE_STATS": "count runs and time of all programs, as long as the descriptor is open",
    "BPF_ITER_CREATE": "start a walk of an iterator: reading the descriptor runs the program",
    "BPF_LINK_DETACH": "detach a link's program, though the link stays open",
    "BPF_PROG_BIND_MAP": "keep a map alive as long as a program",
    "BPF_TOKEN_CREATE": "make a token: rights that a BPF file system delegates",
    "BPF_PROG_STREAM_READ_BY_FD": "read what a program has printed to its stream",
    "BPF_PROG_ASSOC_STRUCT_OPS": "tell kernel functions which struct_ops a program belongs to",
    "perf_event_open": "open a perf event: a counter, a tracepoint, a probe, or a buffer",
    "ioctl": "control a descriptor",
    "mmap": "map memory of a map or perf event into this process",
    "setsockopt": "set an option of a socket",
    "socket": "open a socket to talk with the kernel about interfaces",
    "netlink": "send a request about interfaces, queues or routes",
    "write": "write to a file of the kernel",
    "uprobe": "ask whether this kernel has the quick way to trace functions of programs",
    "setrlimit": "change a limit of this process",
    "PERF_EVENT_IOC_ENABLE": "let a perf event count",
    "PERF_EVENT_IOC_DISABLE": "stop a perf event",
    "PERF_EVENT_IOC_SET_BPF": "let a program run at each event",
    "PERF_EVENT_IOC_SET_OUTPUT": "send samples into another event's buffer",
    "PERF_EVENT_IOC_ID": "ask for a perf event's id",
    "PERF_EVENT_IOC_PERIOD": "change how often a perf event samples",
    "PERF_EVENT_IOC_QUERY_BPF": "ask which programs run at an event",
    "PERF_EVENT_IOC_SET_FILTER": "sample only some of the events",
    "SO_ATTACH_BPF": "let a program decide what a socket receives",
    "SO_DETACH_BPF": "take a socket's filter away",
    "SO_ATTACH_FILTER": "let a classic BPF filter decide what a socket receives",
    "SO_ATTACH_REUSEPORT_EBPF": "let a program choose among the sockets that share a port",
    "SO_DETACH_REUSEPORT_BPF": "take that program away",
}
"""Command, call or request -> what it does."""

_FIELDS = """
map_type|enum BPF_MAP_TYPE_|what kind of map
key_size|number|bytes of a key
value_size|number|bytes of a value
max_entries|number|how many elements it holds; bytes of a ring buffer
map_flags|flags MapFlags|how the map behaves
inner_map_fd|fd|a map like those that this map of maps will hold
numa_node|number|where its memory shall be
map_name|name|its name, for people
map_ifindex|ifindex|the device to offload it to
btf_fd|fd|the types of keys and values
btf_key_type_id|number|type of a key in that BTF
btf_value_type_id|number|type of a value in that BTF
btf_vmlinux_value_type_id|kernel-type|the kernel's struct that a struct_ops map holds, in the kernel's BTF
map_extra|number|bloom filter: hash functions; arena: address
value_type_btf_obj_fd|fd|the module's BTF that the struct is in
map_token_fd|fd|the token whose rights are used
excl_prog_hash|data|SHA-256 of the one program that may use the map
excl_prog_hash_size|number|bytes of that hash
map_fd|fd|which map
key|data|the element's key
value|data|the element's value
next_key|data|the key that follows
BPF_MAP_LOOKUP_ELEM.flags|flags ElementFlags|how to read
BPF_MAP_UPDATE_ELEM.flags|flags ElementFlags|whether the element may, or must, be there already
BPF_MAP_LOOKUP_AND_DELETE_ELEM.flags|flags ElementFlags|how to read
in_batch|data|where to go on; nothing at the beginning
out_batch|data|where the next batch begins
keys|data|the keys, one behind the other
values|data|the values, one behind the other
count|number|how many elements
elem_flags|flags ElementFlags|how each element is treated
prog_type|enum BPF_PROG_TYPE_|what kind of program: which context, helpers and attach points it has
insn_cnt|number|how many instructions, 8 bytes each
insns|insns|the program
license|text|its licence; one compatible with the GPL opens more helpers
log_level|number|how much the verifier tells: 0 nothing, 1 branches, 2 each step, +4 counts
log_size|number|room for the log, in bytes
log_buf|log|where the verifier's log goes
kern_version|number|the kernel it was compiled for; checked for kprobes before Linux 5.0
prog_flags|flags ProgramFlags|how it is verified and run
prog_name|name|its name, for people
prog_ifindex|ifindex|the device to offload it to
expected_attach_type|enum attach|where it will be attached, for types that are verified for it
prog_btf_fd|fd|the types that func_info and line_info speak of
func_info_rec_size|number|bytes of a record
func_info|blob|the type of each function
func_info_cnt|number|how many records
line_info_rec_size|number|bytes of a record
line_info|blob|the line of source of each instruction
line_info_cnt|number|how many records
attach_btf_id|kernel-type|the kernel function or struct that it is for, in the kernel's BTF
attach_prog_fd|fd|the program that this function is in
attach_btf_obj_fd|fd|the module's BTF that this function is in
core_relo_cnt|number|how many CO-RE relocations the kernel shall do
fd_array|u32s|descriptors that instructions refer to by their place in here
core_relos|blob|the relocations
core_relo_rec_size|number|bytes of a record
log_true_size|number|how much room the log needed
prog_token_fd|fd|the token whose rights are used
fd_array_cnt|number|how many descriptors; each is bound to the program
signature|blob|a PKCS#7 signature of the instructions
signature_size|number|bytes of the signature
keyring_id|number|the keyring to check it with
pathname|text|the path in a BPF file system
bpf_fd|fd|which object
file_flags|flags MapFlags|whether it may be read or written
path_fd|fd|the directory that the path begins at
target_fd|fd|what to attach to
target_ifindex|ifindex|the interface to attach to
attach_bpf_fd|fd|the program
attach_type|enum attach|where there
attach_flags|flags AttachFlags|how, beside other programs
replace_bpf_fd|fd|the program that it takes the place of
relative_fd|fd|the program or link that it goes before or after
relative_id|id|the program or link that it goes before or after
expected_revision|number|refuse if something else has been attached meanwhile
prog_fd|fd|the program
retval|number|what the program returned
data_size_in|number|bytes of input
data_size_out|number|bytes of output
data_in|data|the packet that the program gets
data_out|data|the packet as the program left it
repeat|number|how often to run it
duration|number|nanoseconds of one run, on average
ctx_size_in|number|bytes of context
ctx_size_out|number|bytes of context afterwards
ctx_in|data|the context that the program gets
ctx_out|data|the context as the program left it
BPF_PROG_TEST_RUN.flags|flags TestRunFlags|how to run it
cpu|number|on which CPU
batch_size|number|packets in a batch
start_id|id|the id before
prog_id|id|which program
map_id|id|which map
btf_id|id|which BTF
link_id|id|which link
next_id|id|the id found
open_flags|flags MapFlags|whether it may be read or written
fd_by_id_token_fd|fd|the token whose rights are used
info_len|number|bytes of room, then bytes written
info|data|what the kernel knows
query_flags|flags QueryFlags|what to list
prog_ids|u32s|the programs that are attached
prog_attach_flags|u32s|how each is attached
link_ids|u32s|their links
link_attach_flags|u32s|how each link is attached
revision|number|changes with everything that is attached or detached there
prog_cnt|number|how many
BPF_RAW_TRACEPOINT_OPEN.name|text|the tracepoint; nothing for programs that know their target
cookie|number|a number that bpf_get_attach_cookie() gives the program
btf|blob|the type information
btf_log_buf|log|where the kernel says what is wrong with it
btf_size|number|its bytes
btf_log_size|number|room for the log
btf_log_level|number|whether to write a log
btf_log_true_size|number|how much room the log needed
btf_flags|flags MapFlags|how
btf_token_fd|fd|the token whose rights are used
pid|pid|which process
fd|fd|which descriptor
buf_len|number|room for a name
buf|text|the name of the tracepoint or function
fd_type|enum BPF_FD_TYPE_|what it is
probe_offset|number|where in the function
probe_addr|number|address of the probe
BPF_LINK_CREATE.map_fd|fd|the struct_ops map to attach
BPF_LINK_CREATE.flags|number|how; for XDP: 2 in the generic code, 4 in the driver, 8 in the hardware
target_btf_id|number|the function that is replaced or traced, in the BTF of the target
iter_info|data|what to walk over
iter_info_len|number|bytes of that
perf_event.bpf_cookie|number|a number that bpf_get_attach_cookie() gives the program
kprobe_multi.flags|flags KprobeMultiFlags|at the entry or the return
kprobe_multi.cnt|number|how many functions
kprobe_multi.syms|names|the functions, by name
kprobe_multi.addrs|u64s|the functions, by address
kprobe_multi.cookies|u64s|a number for each
tracing.target_btf_id|number|the function that is traced, in the BTF of the target
tracing.cookie|number|a number that bpf_get_attach_cookie() gives the program
netfilter.pf|number|protocol family: 2 IPv4, 10 IPv6
netfilter.hooknum|number|0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting
netfilter.priority|number|order among the hooks; lower runs first
netfilter.flags|flags NetfilterFlags|what the kernel does before
tcx.relative_fd|fd|the program or link that it goes before or after
tcx.relative_id|id|the program or link that it goes before or after
tcx.expected_revision|number|refuse if something else has been attached meanwhile
uprobe_multi.path|text|the executable or library
uprobe_multi.offsets|u64s|places in the file
uprobe_multi.ref_ctr_offsets|u64s|semaphores of the probes, in the file
uprobe_multi.cookies|u64s|a number for each
uprobe_multi.cnt|number|how many places
uprobe_multi.flags|flags UprobeMultiFlags|at the place or at the function's return
uprobe_multi.pid|pid|in which process; 0 is all
uprobe_multi.path_fd|fd|the executable or library, open
netkit.relative_fd|fd|the program or link that it goes before or after
netkit.relative_id|id|the program or link that it goes before or after
netkit.expected_revision|number|refuse if something else has been attached meanwhile
cgroup.relative_fd|fd|the program or link that it goes before or after
cgroup.relative_id|id|the program or link that it goes before or after
cgroup.expected_revision|number|refuse if something else has been attached meanwhile
tracing_multi.ids|u32s|the functions, by their ids in the kernel's BTF
tracing_multi.cookies|u64s|a number for each
tracing_multi.cnt|number|how many functions
link_fd|fd|which link
new_prog_fd|fd|the program that takes over
new_map_fd|fd|the struct_ops map that takes over
BPF_LINK_UPDATE.flags|flags AttachFlags|whether the old program must be the expected one
old_prog_fd|fd|the program that is expected to be there
old_map_fd|fd|the struct_ops map that is expected to be there
BPF_ENABLE_STATS.type|enum BPF_STATS_|what to count
bpffs_fd|fd|the BPF file system that delegates
stream_buf|text|what was printed
stream_buf_len|number|room for it
stream_id|number|1 standard output, 2 standard error
perf_event_open.type|enum PERF_TYPE_|what kind of event; other numbers name a PMU of /sys/bus/event_source/devices
perf_event_open.size|number|bytes of the struct
perf_event_open.config|event|which event of that kind; a tracepoint's id
sample_period|number|a sample every so many events; nanoseconds for clocks
sample_type|number|what a sample holds
wakeup_events|number|wake the reader every so many samples
config1|number|name of the function of a kprobe, or path of the file of a uprobe
config2|number|offset in the function or file
perf_event_open.cpu|number|on which CPU; -1 is all
group_fd|fd|the event that leads the group; -1 is none
perf_event_open.flags|number|8 closes it on exec
ioctl.argument|number|its argument
PERF_EVENT_IOC_SET_BPF.argument|fd|the program
PERF_EVENT_IOC_SET_OUTPUT.argument|fd|the event whose buffer is used; -1 is none
mmap.length|number|bytes
mmap.prot|number|1 reading, 3 reading and writing
mmap.offset|number|where in the object
mmap.address|number|where in this process; 0 lets the kernel choose
setsockopt.value|fd|the program; 0 is none
setsockopt.fd|fd|the socket
flags|number|none is defined yet
message|netlink|the request, with its header
soft|number|the limit; -1 is none
hard|number|how high it may be set; -1 is without end
file|text|which file
line|text|what is written
"""

_meanings: dict[str, tuple[str, str]] = {}


def meaning(name: str, *owners: str) -> tuple[str, str]:
    """The kind and the meaning of a field; ``("number", "")`` for one that is not in the table.

    Args:
        name: the field.
        owners: the command and the call that it is of: a row for one of them goes before the row for all.
    """
    if not _meanings:
        for row in _FIELDS.strip().splitlines():
            field, kind, words = row.split("|")
            _meanings[field] = kind, words
    for owner in owners:
        if f"{owner}.{name}" in _meanings:
            return _meanings[f"{owner}.{name}"]
    return _meanings.get(name) or ("number", "")
