"""The bpf(2) commands that work on programs.

One function per command, each field of union bpf_attr by its name. Source: bpf(2), include/uapi/linux/bpf.h,
kernel/bpf/syscall.c.
"""

from __future__ import annotations

import errno

from pybpf.constants import (
    BPF_F_ID,
    BPF_NETKIT_PEER,
    BPF_NETKIT_PRIMARY,
    BPF_TCX_EGRESS,
    BPF_TCX_INGRESS,
)
from pybpf.errors import kernel_error
from pybpf.syscall.fd import fileno
from pybpf.syscall.invoke import attempt, invoke, number
from pybpf.syscall.record import Record, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.door import Buffer
    from pybpf.syscall.fd import FdLike


def prog_attach(
    target: int | FdLike,
    prog_fd: FdLike,
    attach_type: int,
    *,
    flags: int = 0,
    replace_bpf_fd: FdLike | None = None,
    relative_fd: FdLike | None = None,
    relative_id: int = 0,
    expected_revision: int = 0,
) -> None:
    """BPF_PROG_ATTACH (Linux 4.10): attach a program without a link: it stays until it is detached.

    Args:
        target: what to attach to: a cgroup, a sockmap, a lirc device; for tcx and netkit the interface's number.
        attach_type: BPF_CGROUP_INET_INGRESS and so on.
        flags: BPF_F_ALLOW_OVERRIDE, BPF_F_ALLOW_MULTI (Linux 4.15), BPF_F_REPLACE (Linux 5.6); BPF_F_BEFORE,
            BPF_F_AFTER (Linux 6.6).
        replace_bpf_fd: the program that this one takes the place of; needs BPF_F_REPLACE.
        relative_fd, relative_id: the program to stand before or after; relative_id sets BPF_F_ID.
        expected_revision: fail with ESTALE if the list has been changed since this revision.

    Raises:
        BPFPermissionError: CAP_NET_ADMIN is missing, or the cgroup does not allow it.
        BPFExistsError: EEXIST: it is attached there already.
        BPFError: EINVAL; EBUSY; ESTALE; ERANGE: 64 programs are there already.
    """
    attr = Record("BPF_PROG_ATTACH")
    _position(attr, target, attach_type, flags, relative_fd, relative_id, expected_revision)
    attr.put(attach_bpf_fd=fileno(prog_fd), replace_bpf_fd=number(replace_bpf_fd))
    invoke(attr)


def prog_detach(
    target: int | FdLike,
    attach_type: int,
    *,
    prog_fd: FdLike | None = None,
    flags: int = 0,
    relative_fd: FdLike | None = None,
    relative_id: int = 0,
    expected_revision: int = 0,
) -> None:
    """BPF_PROG_DETACH (Linux 4.10): the reverse of `prog_attach`.

    Args:
        prog_fd: which program; required for cgroups with BPF_F_ALLOW_MULTI and for tcx and netkit.

    Raises:
        BPFNotFoundError: ENOENT: no such program is attached there.
    """
    attr = Record("BPF_PROG_DETACH")
    _position(attr, target, attach_type, flags, relative_fd, relative_id, expected_revision)
    attr.put(attach_bpf_fd=number(prog_fd))
    invoke(attr)


def _position(
    attr: Record,
    target: int | FdLike,
    attach_type: int,
    flags: int,
    relative_fd: FdLike | None,
    relative_id: int,
    expected_revision: int,
) -> None:
    if relative_id:
        flags |= BPF_F_ID
    attr.put(
        target_fd=fileno(target),
        attach_type=attach_type,
        attach_flags=flags,
        relative_fd=relative_id or number(relative_fd),
        expected_revision=expected_revision,
    )


class TestRunResult:
    """What BPF_PROG_TEST_RUN gave.

    Attributes:
        retval: what the program returned, as an unsigned 32-bit number.
        duration_ns: the average time of one run, in nanoseconds.
        data: the packet as the program left it, up to `data_size_out` bytes.
        ctx: the context as the program left it, up to `ctx_size_out` bytes.
    """

    __slots__ = ("ctx", "data", "duration_ns", "retval")
    __test__ = False

    def __init__(self, retval: int, duration_ns: int, data: bytes, ctx: bytes) -> None:
        self.retval = retval
        self.duration_ns = duration_ns
        self.data = data
        self.ctx = ctx

    def __repr__(self) -> str:
        return (
            f"TestRunResult(retval={self.retval}, duration_ns={self.duration_ns}, data={self.data!r}, ctx={self.ctx!r})"
        )


def prog_test_run(
    prog_fd: FdLike,
    *,
    data_in: Buffer | None = None,
    data_size_out: int = 0,
    ctx_in: Buffer | None = None,
    ctx_size_out: int = 0,
    repeat: int = 0,
    flags: int = 0,
    cpu: int = 0,
    batch_size: int = 0,
) -> TestRunResult:
    """BPF_PROG_TEST_RUN (Linux 4.12): run a program on test input. EINTR is retried from the start.

    Args:
        data_in: the packet, for networking programs (XDP: at least 14 bytes).
        data_size_out: room for the packet afterwards, in bytes.
        ctx_in: the context: struct __sk_buff, struct xdp_md, the u64 arguments of a raw tracepoint, or what a
            BPF_PROG_TYPE_SYSCALL program takes (Linux 5.2 and later, by program type).
        ctx_size_out: room for the context afterwards. SYSCALL programs write to `ctx_in`: it is returned.
        repeat: how often to run it; 0 is once.
        flags: BPF_F_TEST_RUN_ON_CPU (Linux 5.10), BPF_F_TEST_XDP_LIVE_FRAMES (Linux 5.18),
            BPF_F_TEST_SKB_CHECKSUM_COMPLETE (Linux 6.11).
        cpu: where to run it, with BPF_F_TEST_RUN_ON_CPU.
        batch_size: frames at a time, with BPF_F_TEST_XDP_LIVE_FRAMES.

    Raises:
        NotSupportedError: programs of this type cannot be run.
        BPFError: EINVAL: input that does not fit the type; ENOSPC: data_size_out or ctx_size_out is too small, the
            message says what it takes.
    """
    data_out, ctx_out = bytearray(data_size_out), bytearray(ctx_size_out)
    ctx_data = None if ctx_in is None else bytearray(ctx_in)
    attr = Record("BPF_PROG_TEST_RUN")
    attr.put(
        prog_fd=fileno(prog_fd),
        data_size_in=0 if data_in is None else len(data_in),
        data_size_out=data_size_out,
        repeat=repeat,
        ctx_size_in=0 if ctx_in is None else len(ctx_in),
        ctx_size_out=ctx_size_out,
        flags=flags,
        cpu=cpu,
        batch_size=batch_size,
    )
    attr.point("data_in", data_in)
    attr.point("data_out", data_out)
    attr.point("ctx_in", ctx_data)
    attr.point("ctx_out", ctx_out)
    result = attempt(attr, errno.EINTR, 0)
    data_size, ctx_size = attr["data_size_out"], attr["ctx_size_out"]
    if result < 0:
        hint = ""
        if result == -errno.ENOSPC:
            hint = f"The output has {data_size} bytes of data and {ctx_size} bytes of context"
        raise kernel_error(-result, attr.title, "", hint)
    if not ctx_size_out and ctx_data is not None:
        ctx_out = ctx_data
    else:
        ctx_out = ctx_out[:ctx_size]
    return TestRunResult(attr["retval"], attr["duration"], bytes(data_out[:data_size]), bytes(ctx_out))


class QueryResult:
    """What BPF_PROG_QUERY found at one attach point.

    Attributes:
        prog_ids: the programs, in the order in which they run.
        attach_flags: how the cgroup takes programs: 0, BPF_F_ALLOW_OVERRIDE or BPF_F_ALLOW_MULTI.
        prog_attach_flags: the flags of each program; empty unless asked for.
        link_ids: the link of each program, 0 for those without; empty where the kernel does not tell.
        link_attach_flags: the flags of each link; empty where the kernel does not tell.
        revision: counts the changes of the list; 0 where the kernel does not tell.
    """

    __slots__ = ("attach_flags", "link_attach_flags", "link_ids", "prog_attach_flags", "prog_ids", "revision")

    def __init__(
        self,
        prog_ids: list[int],
        attach_flags: int,
        prog_attach_flags: list[int],
        link_ids: list[int],
        link_attach_flags: list[int],
        revision: int,
    ) -> None:
        self.prog_ids = prog_ids
        self.attach_flags = attach_flags
        self.prog_attach_flags = prog_attach_flags
        self.link_ids = link_ids
        self.link_attach_flags = link_attach_flags
        self.revision = revision

    def __repr__(self) -> str:
        return f"<QueryResult {len(self.prog_ids)} programs {self.prog_ids}, revision {self.revision}>"


_WITH_LINKS = (BPF_TCX_INGRESS, BPF_TCX_EGRESS, BPF_NETKIT_PRIMARY, BPF_NETKIT_PEER)
"""Attach types for which the kernel tells the links too; for others it refuses the fields."""


def prog_query(
    target: int | FdLike, attach_type: int, *, query_flags: int = 0, prog_attach_flags: bool = False
) -> QueryResult:
    """BPF_PROG_QUERY (Linux 4.15): the programs at an attach point. Room for the answer is found by asking again.

    Args:
        target: a cgroup, a sockmap, a network namespace; for tcx and netkit the interface's number (Linux 6.6).
        attach_type: BPF_CGROUP_INET_INGRESS and so on.
        query_flags: BPF_F_QUERY_EFFECTIVE: what runs in a cgroup, its ancestors' programs included.
        prog_attach_flags: get the flags of each program of a cgroup too (Linux 6.1); not with
            BPF_F_QUERY_EFFECTIVE.

    Raises:
        BPFPermissionError: CAP_NET_ADMIN is missing.
        BPFError: EINVAL; EBADF.
    """
    room = 16
    while True:
        wanted = ["prog_ids"]
        if prog_attach_flags or attach_type in _WITH_LINKS:
            wanted.append("prog_attach_flags")
        if attach_type in _WITH_LINKS:
            wanted += ["link_ids", "link_attach_flags"]
        attr = Record("BPF_PROG_QUERY")
        attr.put(target_fd=fileno(target), attach_type=attach_type, query_flags=query_flags, prog_cnt=room)
        for name in wanted:
            attr.point(name, bytearray(4 * room))
        result = attempt(attr)
        count = attr["prog_cnt"]
        if result < 0 and (result != -errno.ENOSPC or count <= room):
            raise kernel_error(-result, attr.title)
        if result >= 0:
            break
        room = count + 16
    lists = {name: unpack("I", attr.buffers[name])[:count] for name in wanted}
    return QueryResult(
        lists["prog_ids"],
        attr["attach_flags"],
        lists.get("prog_attach_flags", []),
        lists.get("link_ids", []),
        lists.get("link_attach_flags", []),
        attr["revision"],
    )


def prog_assoc_struct_ops(map_fd: FdLike, prog_fd: FdLike, flags: int = 0) -> None:
    """BPF_PROG_ASSOC_STRUCT_OPS (Linux 7.0): tell kernel functions which struct_ops the program belongs to.

    Args:
        map_fd: a STRUCT_OPS map.
        prog_fd: a program that is not itself part of a struct_ops.
        flags: none is defined.

    Raises:
        BPFError: EINVAL: not such a map or program, or the kernel does not know the command; EBUSY.
    """
    attr = Record("BPF_PROG_ASSOC_STRUCT_OPS")
    attr.put(map_fd=fileno(map_fd), prog_fd=fileno(prog_fd), flags=flags)
    invoke(attr)


def prog_stream_read_by_fd(prog_fd: FdLike, stream_id: int, size: int = 4096) -> bytes:
    """BPF_PROG_STREAM_READ_BY_FD (Linux 6.17): take what the program wrote to its output; empty when there is none.

    Args:
        stream_id: BPF_STREAM_STDOUT or BPF_STREAM_STDERR.
        size: at most so many bytes.

    Raises:
        BPFNotFoundError: ENOENT: there is no such stream.
        BPFError: EINVAL: the kernel does not know the command.
    """
    out = bytearray(size)
    attr = Record("BPF_PROG_STREAM_READ_BY_FD")
    attr.put(prog_fd=fileno(prog_fd), stream_id=stream_id, stream_buf_len=size)
    attr.point("stream_buf", out)
    return bytes(out[: invoke(attr)])
