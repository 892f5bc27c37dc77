"""What the kernel tells about a program, a map, a BTF object, a link or a token (BPF_OBJ_GET_INFO_BY_FD).

The fields have the names of the structs in include/uapi/linux/bpf.h. A field that this kernel does not have yet is 0.
Pointers are replaced by what they point to; arrays are fetched by a second call, when asked for.
Source: include/uapi/linux/bpf.h; bpf_prog_get_info_by_fd() and its neighbours in kernel/bpf/syscall.c.
"""

from __future__ import annotations

import errno

from pybpf import constants as c
from pybpf.errors import BPFError
from pybpf.syscall.attrs import LAYOUTS, POINTERS
from pybpf.syscall.objects import obj_get_info_by_fd
from pybpf.syscall.record import Record, decode, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.fd import FdLike

NAME_SIZE = 4096
"""Room for a name or path, in bytes: PATH_MAX, and more than any symbol has."""


class Info:
    """Fields by name. `vars(info)` gives them all."""

    def __init__(self, fields: dict[str, object]) -> None:
        self.__dict__.update(fields)

    def __repr__(self) -> str:
        fields = " ".join(f"{name}={value!r}" for name, value in vars(self).items() if value)
        return f"<{type(self).__name__} {fields}>"


class ProgramInfo(Info):
    """struct bpf_prog_info. Times are in nanoseconds, sizes in bytes."""

    type: int
    id: int
    tag: bytes
    jited_prog_len: int
    xlated_prog_len: int
    load_time: int
    created_by_uid: int
    nr_map_ids: int
    name: str
    ifindex: int
    gpl_compatible: int
    netns_dev: int
    netns_ino: int
    nr_jited_ksyms: int
    nr_jited_func_lens: int
    btf_id: int
    func_info_rec_size: int
    nr_func_info: int
    nr_line_info: int
    nr_jited_line_info: int
    line_info_rec_size: int
    jited_line_info_rec_size: int
    nr_prog_tags: int
    run_time_ns: int
    run_cnt: int
    recursion_misses: int
    verified_insns: int
    attach_btf_obj_id: int
    attach_btf_id: int
    xlated: bytes
    jited: bytes
    map_ids: list[int]
    jited_ksyms: list[int]
    jited_func_lens: list[int]
    func_info: bytes
    line_info: bytes
    jited_line_info: list[int]
    prog_tags: list[bytes]


# Keyword of prog_info() -> (pointer, count, bytes per entry or the field that says so, how to read it).
_PROGRAM_ARRAYS: dict[str, tuple[str, str, int | str, str]] = {
    "xlated": ("xlated_prog_insns", "xlated_prog_len", 1, ""),
    "jited": ("jited_prog_insns", "jited_prog_len", 1, ""),
    "map_ids": ("map_ids", "nr_map_ids", 4, "I"),
    "jited_ksyms": ("jited_ksyms", "nr_jited_ksyms", 8, "Q"),
    "jited_func_lens": ("jited_func_lens", "nr_jited_func_lens", 4, "I"),
    "func_info": ("func_info", "nr_func_info", "func_info_rec_size", ""),
    "line_info": ("line_info", "nr_line_info", "line_info_rec_size", ""),
    "jited_line_info": ("jited_line_info", "nr_jited_line_info", "jited_line_info_rec_size", "Q"),
    "prog_tags": ("prog_tags", "nr_prog_tags", c.BPF_TAG_SIZE, "tag"),
}


def prog_info(
    fd: FdLike,
    *,
    xlated: bool = False,
    jited: bool = False,
    map_ids: bool = False,
    jited_ksyms: bool = False,
    jited_func_lens: bool = False,
    func_info: bool = False,
    line_info: bool = False,
    jited_line_info: bool = False,
    prog_tags: bool = False,
) -> ProgramInfo:
    """What the kernel knows of a program (Linux 4.13).

    Args:
        fd: the program.
        xlated: fetch the instructions as the verifier left them; empty without CAP_SYS_ADMIN or CAP_BPF and PERFMON.
        jited: fetch the machine code of all functions, one after the other.
        map_ids: fetch the ids of its maps.
        jited_ksyms: fetch the address of each function.
        jited_func_lens: fetch the length of each function's machine code.
        func_info, line_info: fetch the records.
        jited_line_info: fetch the address that each line record belongs to.
        prog_tags: fetch the tag of each function.

    Returns:
        Arrays that were not asked for, or that the kernel does not give away, are empty.
    """
    wanted = {
        "xlated": xlated,
        "jited": jited,
        "map_ids": map_ids,
        "jited_ksyms": jited_ksyms,
        "jited_func_lens": jited_func_lens,
        "func_info": func_info,
        "line_info": line_info,
        "jited_line_info": jited_line_info,
        "prog_tags": prog_tags,
    }
    first = Record("bpf_prog_info")
    obj_get_info_by_fd(fd, first.data)
    fields = _values("bpf_prog_info", first)
    second = Record("bpf_prog_info")
    for name, yes in wanted.items():
        pointer_name, count_name, size, kind = _PROGRAM_ARRAYS[name]
        fields[name] = b"" if not kind else []
        entry = first[size] if isinstance(size, str) else size
        if yes and first[count_name]:
            second.put(**{count_name: first[count_name]})
            if isinstance(size, str):
                second.put(**{size: entry})
            second.point(pointer_name, bytearray(entry * first[count_name]))
    if second.buffers:
        obj_get_info_by_fd(fd, second.data)
        for name in wanted:
            pointer_name, _, _, kind = _PROGRAM_ARRAYS[name]
            # The kernel zeroes the pointer to what it does not give away.
            if pointer_name in second.buffers and second[pointer_name]:
                fields[name] = _array(bytes(second.buffers[pointer_name]), kind)
    return ProgramInfo(fields)


def _array(data: bytes, kind: str) -> object:
    if kind == "tag":
        return [data[place : place + c.BPF_TAG_SIZE] for place in range(0, len(data), c.BPF_TAG_SIZE)]
    return unpack(kind, data) if kind else data


def _values(title: str, record: Record) -> dict[str, object]:
    """The fields of a struct without its pointers."""
    pointers = POINTERS.get(title, ())
    return {name: value for name, value in decode(title, record.data).items() if name not in pointers}


class MapInfo(Info):
    """struct bpf_map_info. Sizes are in bytes."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int
    name: str
    ifindex: int
    btf_vmlinux_value_type_id: int
    netns_dev: int
    netns_ino: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int
    btf_vmlinux_id: int
    map_extra: int
    hash_size: int
    hash: bytes


def map_info(fd: FdLike, *, hash: bool = False) -> MapInfo:
    """What the kernel knows of a map (Linux 4.13).

    Args:
        hash: fetch the SHA-256 of the contents, 32 bytes; the map must be frozen (Linux 6.18).

    Raises:
        BPFError: EPERM: the hash of a map that is not frozen; EINVAL: maps of this type have none.
    """
    record = Record("bpf_map_info")
    digest = bytearray(32)
    if hash:
        record.put(hash_size=len(digest))
        record.point("hash", digest)
    obj_get_info_by_fd(fd, record.data)
    return MapInfo({**_values("bpf_map_info", record), "hash": bytes(digest) if hash else b""})


class BTFInfo(Info):
    """struct bpf_btf_info. `kernel_btf` is 1 for the kernel's own, whose `name` is "vmlinux" or the module's."""

    btf_size: int
    id: int
    name: str
    name_len: int
    kernel_btf: int
    data: bytes


def btf_info(fd: FdLike, *, data: bool = False) -> BTFInfo:
    """What the kernel knows of a BTF object (Linux 4.18); name and kernel_btf since Linux 5.11.

    Args:
        data: fetch the BTF itself.
    """
    name = bytearray(NAME_SIZE)
    record = Record("bpf_btf_info")
    record.put(name_len=len(name))
    record.point("name", name)
    try:
        obj_get_info_by_fd(fd, record.data)
    except BPFError as error:
        if error.errno != errno.E2BIG:
            raise
        record = Record("bpf_btf_info", LAYOUTS["bpf_btf_info"]["name"][0])  # before Linux 5.11
        obj_get_info_by_fd(fd, record.data)
    fields = {"name_len": 0, "kernel_btf": 0, **_values("bpf_btf_info", record)}
    fields["name"] = name.partition(b"\0")[0].decode("utf-8", "replace")
    fields["data"] = b""
    if data:
        contents = bytearray(record["btf_size"])
        record = Record("bpf_btf_info", LAYOUTS["bpf_btf_info"]["name"][0])
        record.put(btf_size=len(contents))
        record.point("btf", contents)
        obj_get_info_by_fd(fd, record.data)
        fields["data"] = bytes(contents)
    return BTFInfo(fields)


class LinkInfo(Info):
    """struct bpf_link_info: `type`, `id`, `prog_id`, and the fields of this kind of link.

    ============== =====================================================================================
    raw_tracepoint tp_name, cookie
    tracing        attach_type, target_obj_id, target_btf_id, cookie
    cgroup         cgroup_id, attach_type
    iter           target_name; map_id, or cgroup_id and order, or tid and pid, as the target has it
    netns          netns_ino, attach_type
    xdp            ifindex
    perf_event     perf_type, cookie; of a uprobe file_name, offset, ref_ctr_offset; of a kprobe func_name,
                   offset, addr, missed; of a tracepoint tp_name; of another event config, event_type
    kprobe_multi   count, flags, missed, addrs, cookies
    struct_ops     map_id
    netfilter      pf, hooknum, priority, flags
    tcx, netkit    ifindex (0 when the device is gone), attach_type
    uprobe_multi   path, count, flags, pid, offsets, ref_ctr_offsets, cookies
    sockmap        map_id, attach_type
    tracing_multi  attach_type, count, btf_obj_id, ids, addrs, cookies (Linux 7.3)
    ============== =====================================================================================

    Reading a field that this kind of link does not have raises AttributeError.
    """

    type: int
    id: int
    prog_id: int
    attach_type: int
    target_obj_id: int
    target_btf_id: int
    cookie: int
    tp_name: str
    cgroup_id: int
    target_name: str
    map_id: int
    order: int
    tid: int
    pid: int
    netns_ino: int
    ifindex: int
    perf_type: int
    file_name: str
    func_name: str
    offset: int
    ref_ctr_offset: int
    addr: int
    missed: int
    config: int
    event_type: int
    count: int
    flags: int
    pf: int
    hooknum: int
    priority: int
    path: str
    btf_obj_id: int
    ids: list[int]
    addrs: list[int]
    offsets: list[int]
    ref_ctr_offsets: list[int]
    cookies: list[int]


_PERF_PARTS = {
    c.BPF_PERF_EVENT_UPROBE: "perf_event.uprobe",
    c.BPF_PERF_EVENT_URETPROBE: "perf_event.uprobe",
    c.BPF_PERF_EVENT_KPROBE: "perf_event.kprobe",
    c.BPF_PERF_EVENT_KRETPROBE: "perf_event.kprobe",
    c.BPF_PERF_EVENT_TRACEPOINT: "perf_event.tracepoint",
    c.BPF_PERF_EVENT_EVENT: "perf_event.event",
}
_ITER_PARTS = {"bpf_map_elem": "map", "bpf_sk_storage_map": "map", "cgroup": "cgroup"}
"""Iterator target -> its part of the union; those that begin with "task" have the part "task"."""
_STRINGS = {
    "raw_tracepoint": ("tp_name", "tp_name_len"),
    "iter": ("target_name", "target_name_len"),
    "uprobe_multi": ("path", "path_size"),
    "perf_event.uprobe": ("file_name", "name_len"),
    "perf_event.kprobe": ("func_name", "name_len"),
    "perf_event.tracepoint": ("tp_name", "name_len"),
}
"""Part of the union -> its string and the field with the string's room."""
_ARRAYS = {
    "kprobe_multi": {"addrs": "Q", "cookies": "Q"},
    "uprobe_multi": {"offsets": "Q", "ref_ctr_offsets": "Q", "cookies": "Q"},
    "tracing_multi": {"ids": "I", "addrs": "Q", "cookies": "Q"},
}
"""Part of the union -> its arrays."""
_RENAMED = {"perf_event.event.type": "event_type"}


def link_info(fd: FdLike, *, arrays: bool = False) -> LinkInfo:
    """What the kernel knows of a link (Linux 5.8). Strings are fetched, arrays when asked for.

    Args:
        arrays: fetch the addresses, offsets and cookies of links with many targets (Linux 6.6 and later).

    Raises:
        BPFError: ENOLINK: it is detached, for some kinds of links.
    """
    first = Record("bpf_link_info")
    obj_get_info_by_fd(fd, first.data)
    names = c.LINK_TYPE_NAMES
    part = (names[first["type"]] or "") if first["type"] < len(names) else ""
    fields: dict[str, object] = {name: first[name] for name in ("type", "id", "prog_id")}
    if part == "perf_event":
        fields["perf_type"] = first["perf_event.type"]
        part = _PERF_PARTS.get(first["perf_event.type"], "")
    second = Record("bpf_link_info")
    if part in _STRINGS:
        name, room = _STRINGS[part]
        second[f"{part}.{room}"] = NAME_SIZE
        second.point(f"{part}.{name}", bytearray(NAME_SIZE))
    lists = _ARRAYS.get(part, {})
    count = first[f"{part}.count"] if lists and arrays else 0
    if count:
        second[f"{part}.count"] = count
        for name, code in lists.items():
            second.point(f"{part}.{name}", bytearray(count * (4 if code == "I" else 8)))
    if second.buffers:
        obj_get_info_by_fd(fd, second.data)
    else:
        second = first
    fields.update(_part(part, second))
    for name, code in lists.items():
        data = second.buffers.get(f"{part}.{name}", b"")
        fields[name] = unpack(code, data) if second[f"{part}.{name}"] else []
    return LinkInfo(fields)


def _part(part: str, record: Record) -> dict[str, object]:
    """The fields of one part of the union, without those that only transport others."""
    fields: dict[str, object] = {}
    string, room = _STRINGS.get(part, ("", ""))
    if string:
        data = bytes(record.buffers[f"{part}.{string}"])
        fields[string] = data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    pointers = POINTERS["bpf_link_info"]
    for name in LAYOUTS["bpf_link_info"]:
        owner, _, field = name.rpartition(".")
        if owner == part and name not in pointers and field != room:
            fields[_RENAMED.get(name, field)] = record[name]
    if part == "iter":
        target = str(fields["target_name"])
        inner = _ITER_PARTS.get(target) or ("task" if target.startswith("task") else "")
        fields.update(_part(f"iter.{inner}", record) if inner else {})
    return fields


class TokenInfo(Info):
    """struct bpf_token_info: bit N is set if command, map type, program type or attach type N is allowed."""

    allowed_cmds: int
    allowed_maps: int
    allowed_progs: int
    allowed_attachs: int


def token_info(fd: FdLike) -> TokenInfo:
    """What a BPF token allows (Linux 6.17)."""
    record = Record("bpf_token_info")
    obj_get_info_by_fd(fd, record.data)
    return TokenInfo(_values("bpf_token_info", record))
