"""The bpf(2) commands that make what a load needs: type information, maps, programs, and the simplest attachment.

They have a module of their own so that a load imports no others. One function per command, each field of union
bpf_attr by its name. Source: bpf(2), include/uapi/linux/bpf.h, kernel/bpf/syscall.c.
"""

from __future__ import annotations

import errno

from pybpf.constants import BPF_F_RB_OVERWRITE, BPF_F_TOKEN_FD, BPF_F_VTYPE_BTF_OBJ_FD, BPF_MAP_TYPE_RINGBUF
from pybpf.errors import BPFError, kernel_error
from pybpf.syscall.fd import FD, fileno
from pybpf.syscall.invoke import attempt, descriptor, invoke, number
from pybpf.syscall.record import Record, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from pybpf.syscall.door import Buffer
    from pybpf.syscall.fd import FdLike

LOAD_ATTEMPTS = 5
"""How often BPF_PROG_LOAD is tried while it answers EAGAIN, which it does when a signal is pending; as in libbpf."""


def btf_load(
    data: Buffer, *, log_level: int = 0, log_buffer: bytearray | None = None, token_fd: FdLike | None = None
) -> FD:
    """BPF_BTF_LOAD (Linux 4.18): give type information to the kernel.

    Args:
        data: BTF in this machine's byte order.
        log_level: 0 or 1.
        log_buffer: where the kernel says what is wrong. If it is a `LogBuffer`, its `true_size` says how much room
            was needed (Linux 6.4).
        token_fd: a BPF token to use; sets BPF_F_TOKEN_FD (Linux 6.9).

    Raises:
        BPFPermissionError: CAP_BPF is missing.
        BPFError: EINVAL: the BTF is malformed, or has a kind that this kernel does not know; ENOSPC: the log has
            no room; E2BIG: more than 16 MiB.
    """
    attr = Record("BPF_BTF_LOAD")
    attr.put(
        btf_size=len(data),
        btf_log_size=0 if log_buffer is None else len(log_buffer),
        btf_log_level=log_level,
        btf_flags=0 if token_fd is None else BPF_F_TOKEN_FD,
        btf_token_fd=number(token_fd),
    )
    attr.point("btf", data)
    attr.point("btf_log_buf", log_buffer)
    fd = FD._empty()
    result = attempt(attr, into=fd)
    _tell_true_size(log_buffer, attr["btf_log_true_size"])
    if result < 0:
        raise kernel_error(-result, attr.title)
    return fd._over(result)


def map_create(
    map_type: int,
    *,
    key_size: int = 0,
    value_size: int = 0,
    max_entries: int = 0,
    map_flags: int = 0,
    name: str = "",
    inner_map_fd: FdLike | None = None,
    numa_node: int = 0,
    ifindex: int = 0,
    btf_fd: FdLike | None = None,
    btf_key_type_id: int = 0,
    btf_value_type_id: int = 0,
    btf_vmlinux_value_type_id: int = 0,
    map_extra: int = 0,
    value_type_btf_obj_fd: FdLike | None = None,
    token_fd: FdLike | None = None,
    excl_prog_hash: Buffer = b"",
) -> FD:
    """BPF_MAP_CREATE (Linux 3.18): make a map.

    Args:
        map_type: BPF_MAP_TYPE_HASH and so on.
        key_size: bytes; 0 for types without keys.
        value_size: bytes of one value (of one CPU's value in per-CPU maps).
        max_entries: capacity in elements; bytes for ring buffers, pages for arenas, 0 for local storage.
        map_flags: BPF_F_NO_PREALLOC and so on.
        name: at most 15 of A-Z a-z 0-9 _ and . (Linux 4.15).
        inner_map_fd: a map like those that a map of maps will hold (Linux 4.12).
        numa_node: where to allocate; needs BPF_F_NUMA_NODE (Linux 4.14).
        ifindex: the network device to offload the map to (Linux 4.16).
        btf_fd, btf_key_type_id, btf_value_type_id: the types of keys and values (Linux 4.18).
        btf_vmlinux_value_type_id: the kernel's struct that a STRUCT_OPS map holds (Linux 5.6).
        map_extra: bloom filter: hash functions; arena: address; RHASH: size hint (Linux 5.16).
        value_type_btf_obj_fd: the module BTF of btf_vmlinux_value_type_id; sets its flag (Linux 6.9).
        token_fd: a BPF token to use; sets BPF_F_TOKEN_FD (Linux 6.9).
        excl_prog_hash: SHA-256 of the one program that may use the map, 32 bytes (Linux 6.18).

    Raises:
        BPFPermissionError: EPERM: CAP_BPF (or CAP_SYS_ADMIN, or CAP_NET_ADMIN for some types) is missing, or,
            before Linux 5.11, RLIMIT_MEMLOCK is too low.
        BPFError: EINVAL: sizes, flags or the type do not go together; E2BIG; ENOMEM.
        NotSupportedError: the type does not take BTF, or not these flags.
    """
    if token_fd is not None:
        map_flags |= BPF_F_TOKEN_FD
    if value_type_btf_obj_fd is not None:
        map_flags |= BPF_F_VTYPE_BTF_OBJ_FD
    attr = Record("BPF_MAP_CREATE")
    attr.put(
        map_type=map_type,
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        map_flags=map_flags,
        inner_map_fd=number(inner_map_fd),
        numa_node=numa_node,
        map_ifindex=ifindex,
        btf_fd=number(btf_fd),
        btf_key_type_id=btf_key_type_id,
        btf_value_type_id=btf_value_type_id,
        btf_vmlinux_value_type_id=btf_vmlinux_value_type_id,
        map_extra=map_extra,
        value_type_btf_obj_fd=number(value_type_btf_obj_fd),
        map_token_fd=number(token_fd),
        excl_prog_hash_size=len(excl_prog_hash),
    )
    attr.text("map_name", name)
    attr.point("excl_prog_hash", excl_prog_hash)
    try:
        return descriptor(attr, f"map {name!r}" if name else "")
    except BPFError as error:
        if error.errno == errno.EINVAL and map_type == BPF_MAP_TYPE_RINGBUF and map_flags & BPF_F_RB_OVERWRITE:
            error.hint = "BPF_F_RB_OVERWRITE needs Linux 6.19"
        raise


def map_fill(map_fd: FdLike, value: Buffer) -> None:
    """BPF_MAP_UPDATE_ELEM (Linux 3.18) of the only element of an array.

    `map_update_elem` asks the kernel first how large values are; here the caller knows, having made the map.

    Raises:
        BPFError: the kernel refused.
    """
    attr = Record("BPF_MAP_UPDATE_ELEM")
    attr.put(map_fd=fileno(map_fd))
    attr.point("key", bytes(4))
    attr.point("value", value)
    invoke(attr)


def map_freeze(map_fd: FdLike) -> None:
    """BPF_MAP_FREEZE (Linux 5.2): let nobody write to the map through bpf(2) any more.

    Raises:
        BPFError: EBUSY: it is mapped writable, or being written to.
        BPFPermissionError: EPERM: it is frozen already, or the descriptor does not allow writing.
        NotSupportedError: the map's type or its special fields do not allow it.
    """
    attr = Record("BPF_MAP_FREEZE")
    attr.put(map_fd=fileno(map_fd))
    invoke(attr)


def prog_load(
    prog_type: int,
    insns: Buffer,
    *,
    license: str = "GPL",
    name: str = "",
    expected_attach_type: int = 0,
    prog_flags: int = 0,
    kern_version: int = 0,
    ifindex: int = 0,
    btf_fd: FdLike | None = None,
    func_info: Buffer = b"",
    func_info_rec_size: int = 0,
    line_info: Buffer = b"",
    line_info_rec_size: int = 0,
    attach_btf_id: int = 0,
    attach_prog_fd: FdLike | None = None,
    attach_btf_obj_fd: FdLike | None = None,
    fd_array: Sequence[int] | None = None,
    fd_array_cnt: int = 0,
    core_relos: Buffer = b"",
    core_relo_rec_size: int = 0,
    log_level: int = 0,
    log_buffer: bytearray | None = None,
    token_fd: FdLike | None = None,
    signature: Buffer = b"",
    keyring_id: int = 0,
) -> FD:
    """BPF_PROG_LOAD (Linux 3.18): verify and load a program. EAGAIN is retried, up to 5 attempts in total.

    Args:
        prog_type: BPF_PROG_TYPE_XDP and so on.
        insns: the instructions, 8 bytes each, in this machine's byte order.
        license: "GPL" opens the helpers that want it.
        name: at most 15 of A-Z a-z 0-9 _ and . (Linux 4.15).
        expected_attach_type: BPF_CGROUP_INET4_BIND and so on, for types that need it (Linux 4.17).
        prog_flags: BPF_F_SLEEPABLE and so on.
        kern_version: LINUX_VERSION_CODE, which kernels before 5.0 want for BPF_PROG_TYPE_KPROBE.
        ifindex: the network device to offload to or to bind to (Linux 4.16).
        btf_fd: the program's types, for func_info and line_info (Linux 4.20, line_info 5.0).
        func_info, line_info: records; their sizes are 8 and 16 unless the rec_size fields say otherwise.
        attach_btf_id: the kernel function or struct to attach to (Linux 5.5).
        attach_prog_fd: the program that attach_btf_id is in (Linux 5.6).
        attach_btf_obj_fd: the module BTF that attach_btf_id is in (Linux 5.11). Shares its place with attach_prog_fd.
        fd_array: descriptors that instructions refer to by index (Linux 5.14).
        fd_array_cnt: not 0: fd_array has so many, and each is bound to the program (Linux 6.14).
        core_relos, core_relo_rec_size: let the kernel do CO-RE (Linux 5.17). Records have 16 bytes unless said.
        log_level: 0 none, 1 or 2 the verifier's steps, plus 4 for statistics, plus 8 to keep the log's head
            instead of its tail (Linux 6.4).
        log_buffer: where the log goes. If it is a `LogBuffer`, its `true_size` says how much room was needed
            (Linux 6.4), on success and on failure.
        token_fd: a BPF token to use; sets BPF_F_TOKEN_FD (Linux 6.9).
        signature, keyring_id: a PKCS#7 signature of the instructions, and the keyring to check it with (Linux 6.18).

    Raises:
        BPFPermissionError: EPERM: a capability is missing; EACCES: the verifier rejected the program.
        BPFError: EINVAL: the verifier rejected it, or the fields do not go together; ENOSPC: the log has no room,
            see `LogBuffer.true_size`; E2BIG: too many instructions; EAGAIN five times.
    """
    if token_fd is not None:
        prog_flags |= BPF_F_TOKEN_FD
    if attach_prog_fd is not None and attach_btf_obj_fd is not None:
        raise ValueError("attach_prog_fd and attach_btf_obj_fd share one field: give one of them")
    func_info_rec_size = func_info_rec_size or (8 if func_info else 0)
    line_info_rec_size = line_info_rec_size or (16 if line_info else 0)
    core_relo_rec_size = core_relo_rec_size or (16 if core_relos else 0)
    attr = Record("BPF_PROG_LOAD")
    attr.put(
        prog_type=prog_type,
        insn_cnt=_whole(insns, 8, "insns"),
        log_level=log_level,
        log_size=0 if log_buffer is None else len(log_buffer),
        kern_version=kern_version,
        prog_flags=prog_flags,
        prog_ifindex=ifindex,
        expected_attach_type=expected_attach_type,
        prog_btf_fd=number(btf_fd),
        func_info_rec_size=func_info_rec_size,
        func_info_cnt=_whole(func_info, func_info_rec_size, "func_info"),
        line_info_rec_size=line_info_rec_size,
        line_info_cnt=_whole(line_info, line_info_rec_size, "line_info"),
        attach_btf_id=attach_btf_id,
        attach_prog_fd=number(attach_btf_obj_fd if attach_prog_fd is None else attach_prog_fd),
        core_relo_cnt=_whole(core_relos, core_relo_rec_size, "core_relos"),
        core_relo_rec_size=core_relo_rec_size,
        prog_token_fd=number(token_fd),
        fd_array_cnt=fd_array_cnt,
        signature_size=len(signature),
        keyring_id=keyring_id,
    )
    attr.text("prog_name", name)
    attr.point("insns", insns)
    attr.point("license", license.encode() + b"\0")
    attr.point("log_buf", log_buffer)
    attr.point("func_info", func_info)
    attr.point("line_info", line_info)
    attr.point("fd_array", pack("i", fd_array) if fd_array else None)
    attr.point("core_relos", core_relos)
    attr.point("signature", signature)
    fd = FD._empty()
    result = attempt(attr, errno.EAGAIN, LOAD_ATTEMPTS, fd)
    _tell_true_size(log_buffer, attr["log_true_size"])
    if result < 0:
        raise kernel_error(-result, attr.title, f"program {name!r}" if name else "")
    return fd._over(result)


def _tell_true_size(log_buffer: bytearray | None, size: int) -> None:
    if log_buffer is None:
        return
    from pybpf.syscall.logs import LogBuffer

    if isinstance(log_buffer, LogBuffer):
        log_buffer.true_size = size


def _whole(data: Buffer, size: int, name: str) -> int:
    """How many records of that size there are."""
    if len(data) % (size or 1):
        raise ValueError(f"{name} has {len(data)} bytes, which is not a multiple of {size}")
    return len(data) // size if size else 0


def prog_bind_map(prog_fd: FdLike, map_fd: FdLike, flags: int = 0) -> None:
    """BPF_PROG_BIND_MAP (Linux 5.10): keep a map alive as long as the program, which need not use it.

    Args:
        flags: none is defined.
    """
    attr = Record("BPF_PROG_BIND_MAP")
    attr.put(prog_fd=fileno(prog_fd), map_fd=fileno(map_fd), flags=flags)
    invoke(attr)


def raw_tracepoint_open(prog_fd: FdLike, name: str | None = None, cookie: int = 0) -> FD:
    """BPF_RAW_TRACEPOINT_OPEN (Linux 4.17): attach to a raw tracepoint; it is attached as long as this is open.

    Args:
        prog_fd: a raw tracepoint program; or (Linux 5.5) a TRACING, LSM or EXT program, which knows its target.
        name: the tracepoint ("sched_switch"); None for programs that know their target.
        cookie: what bpf_get_attach_cookie() gives to the program (Linux 6.10).

    Raises:
        BPFNotFoundError: ENOENT: there is no such tracepoint.
        BPFError: EINVAL: name and program type do not go together; EBUSY.
        NotSupportedError: the kernel cannot attach there.
    """
    attr = Record("BPF_RAW_TRACEPOINT_OPEN")
    attr.put(prog_fd=fileno(prog_fd), cookie=cookie)
    if name is not None:
        attr.point("name", name.encode() + b"\0")
    return descriptor(attr, f"raw tracepoint {name!r}" if name else "")
