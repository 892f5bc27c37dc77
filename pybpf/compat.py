"""What older kernels need done differently.

Rules:

* The modern call is tried first. Only when it fails is a probe run, and only a conclusive answer is kept.
* With a BPF token the answer is the token's, and not kept.
* No kernel version is compared: each probe makes the smallest call that shows the feature.
* The comment at each workaround names the kernel that made it unnecessary. Linux 5.10 is the oldest that is looked at.

Source of the probes: tools/lib/bpf/features.c of the kernel.
"""

from __future__ import annotations

import errno
import sys
from functools import cache

from pybpf import constants as c
from pybpf import syscall
from pybpf.asm import slots
from pybpf.asm.instruction import Instruction, encode
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BPFError
from pybpf.syscall import door

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from pybpf.syscall.fd import FD, FdLike

    T = TypeVar("T")

EXIT = 0x95
MOVE = 0xB7


def _kept(probe: Callable[[FdLike | None], T]) -> Callable[..., T]:
    """The probe, whose answer is kept unless it was asked with a token."""
    answers: list[T] = []

    def ask(token_fd: FdLike | None = None) -> T:
        if token_fd is not None:
            return probe(token_fd)
        if not answers:
            answers.append(probe(None))
        return answers[0]

    ask.__doc__ = probe.__doc__
    return ask


def _call_program(helper: int) -> bytes:
    """A program that calls one helper and ends."""
    return encode([Instruction(slots.CALL, imm=helper), Instruction(EXIT)])


def _loads(program_type: int, code: bytes, token_fd: FdLike | None = None) -> bool:
    try:
        syscall.prog_load(program_type, code, license="GPL", token_fd=token_fd).close()
    except BPFError:
        return False
    return True


def minimal_program(program_type: int, result: int = 0) -> FD:
    """A program that returns a number and does nothing else, to try an attachment with."""
    return syscall.prog_load(program_type, encode([Instruction(MOVE, imm=result), Instruction(EXIT)]), license="GPL")


# RLIMIT_MEMLOCK: before Linux 5.11 maps and programs were charged to it (commit 3ac1f01b43b6 charges the cgroup).


@cache
def charges_memlock() -> bool:
    """True on kernels that charge BPF memory to RLIMIT_MEMLOCK.

    The helper bpf_ktime_get_coarse_ns came with the same release as the memory cgroup's accounting.
    """
    return not _loads(c.BPF_PROG_TYPE_SOCKET_FILTER, _call_program(c.BPF_FUNC_ktime_get_coarse_ns))


def raise_memlock() -> bool:
    """Lift this process's RLIMIT_MEMLOCK where that can have been the reason for EPERM. True when it was lifted."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY or not charges_memlock():
        return False
    for limit in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, limit)
        except (OSError, ValueError):
            continue
        return limit[0] == resource.RLIM_INFINITY or limit[0] > soft
    return False


# BTF kinds, in the order in which kernels learnt them.


def _btf_int(builder: BTFBuilder) -> int:
    return builder.add_int("int", 4, 32, 1)


def _probe_func(builder: BTFBuilder, linkage: int = 0) -> None:
    number = _btf_int(builder)
    builder.add_func("x", builder.add_func_proto(0, [("a", number)]), linkage)


def _probe_datasec(builder: BTFBuilder, name: str = ".data") -> None:
    variable = builder.add_var("x", _btf_int(builder), 0)
    builder.add_datasec(name, 4, [(variable, 0, 4)])


def _probe_decl_tag(builder: BTFBuilder) -> None:
    builder.add_decl_tag("tag", builder.add_var("x", _btf_int(builder), 0), -1)


def _probe_type_tag(builder: BTFBuilder) -> None:
    builder.add_ptr(builder.add_type_tag("tag", _btf_int(builder)))


BTF_PROBES: dict[str, Callable[[BTFBuilder], object]] = {
    "func": _probe_func,  # Linux 5.0
    "func_global": lambda builder: _probe_func(builder, 1),  # Linux 5.6
    "datasec": _probe_datasec,  # Linux 5.2
    "datasec_question": lambda builder: _probe_datasec(builder, "?.data"),  # Linux 6.9
    "float": lambda builder: builder.add_float("float", 4),  # Linux 5.13
    "decl_tag": _probe_decl_tag,  # Linux 5.16
    "type_tag": _probe_type_tag,  # Linux 5.17
    "enum64": lambda builder: builder.add_enum64("e", 8, False, []),  # Linux 6.0
}


def _accepts_btf(describe: Callable[[BTFBuilder], object], token_fd: FdLike | None) -> bool:
    builder = BTFBuilder()
    describe(builder)
    try:
        syscall.btf_load(builder.to_bytes(), token_fd=token_fd).close()
    except BPFError:
        return False
    return True


@_kept
def has_btf(token_fd: FdLike | None) -> bool:
    """True when BPF_BTF_LOAD takes the simplest type (Linux 4.18, CAP_BPF)."""
    return _accepts_btf(_btf_int, token_fd)


@_kept
def missing_btf_features(token_fd: FdLike | None) -> frozenset[str]:
    """What this kernel's BTF does not know, in the words of `pybpf.btf.writer.sanitise`."""
    return frozenset(name for name, describe in BTF_PROBES.items() if not _accepts_btf(describe, token_fd))


# Programs


def make_kernel_read_its_btf(token_fd: FdLike | None = None) -> None:
    """Let the verifier check a program: Linux 5.10 reads its own BTF only then, and knows no struct_ops before."""
    _loads(c.BPF_PROG_TYPE_SOCKET_FILTER, encode([Instruction(MOVE, imm=0), Instruction(EXIT)]), token_fd)


@_kept
def has_context_tags(token_fd: FdLike | None) -> bool:
    """True when the kernel knows the declaration tag ``arg:ctx`` (Linux 6.8).

    The probe's subprogram calls a helper that takes nothing but the context, and gets its argument by the tag alone.
    """
    builder = BTFBuilder()
    number, pointer = _btf_int(builder), builder.add_ptr(0)
    main = builder.add_func("a", builder.add_func_proto(number, [("a", pointer)]))
    tagged = builder.add_func("b", builder.add_func_proto(number, [("b", pointer)]))
    builder.add_decl_tag("arg:ctx", tagged, 0)
    code = [
        Instruction(slots.CALL, src=c.BPF_PSEUDO_CALL, imm=1),
        Instruction(EXIT),
        Instruction(slots.CALL, imm=c.BPF_FUNC_get_func_ip),
        Instruction(EXIT),
    ]
    func_info = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, main, 2, tagged))
    try:
        with syscall.btf_load(builder.to_bytes(), token_fd=token_fd) as btf:
            syscall.prog_load(
                c.BPF_PROG_TYPE_KPROBE, encode(code), btf_fd=btf, func_info=func_info, token_fd=token_fd
            ).close()
    except BPFError:
        return False
    return True


@_kept
def has_full_range_offsets(token_fd: FdLike | None) -> bool:
    """True when ldimm64 may point anywhere into a map's value: Linux 7.0 or so; before only into its first 512 MiB.

    The probe points behind the end of a value. The verifier refuses it either way, with different words.
    """
    buffer = syscall.LogBuffer(4096)
    with syscall.map_create(c.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=1, max_entries=1, token_fd=token_fd) as array:
        far = Instruction(slots.LDIMM64, 1, c.BPF_PSEUDO_MAP_VALUE, imm=array.fileno(), high=1 << 30)
        code = encode([far, Instruction(MOVE, imm=0), Instruction(EXIT)])
        try:
            syscall.prog_load(
                c.BPF_PROG_TYPE_TRACEPOINT, code, log_level=1, log_buffer=buffer, token_fd=token_fd
            ).close()
        except BPFError:
            return "invalid access to map value pointer" in buffer.text
    return False


@_kept
def has_uprobe_multi(token_fd: FdLike | None) -> bool:
    """True when one link holds many uprobes, and means processes by `pid`: Linux 6.6 (before 6.10 with a later fix).

    The probe attaches to a folder, which is refused as no file (EBADF), or as no process (EINVAL). Kernels that took
    `pid` for a thread look at the file first.
    """
    code = encode([Instruction(MOVE, imm=0), Instruction(EXIT)])
    try:
        program = syscall.prog_load(
            c.BPF_PROG_TYPE_KPROBE,
            code,
            license="GPL",
            expected_attach_type=c.BPF_TRACE_UPROBE_MULTI,
            token_fd=token_fd,
        )
    except BPFError:
        return False
    with program:
        refusals = []
        for pid in (0, (1 << 32) - 1):
            try:
                syscall.link_create(program, -1, c.BPF_TRACE_UPROBE_MULTI, path="/", offsets=[0], pid=pid).close()
            except BPFError as error:
                refusals.append(error.errno)
    return refusals == [errno.EBADF, errno.EINVAL]


@cache
def quick_uprobe_size() -> int:
    """Bytes of the no-operation instruction that the kernel turns into a call when a uprobe is on it; 0 if none.

    x86-64, Linux 6.18 (5 bytes), later 10 bytes. The call ends in uprobe(2), whose refusal to be called by anybody else
    tells which.
    """
    return {errno.ENXIO: 5, errno.EPROTO: 10}.get(-door.uprobe(), 0)


@_kept
def has_bpf_cookie(token_fd: FdLike | None) -> bool:
    """True when attachments carry a cookie (helper bpf_get_attach_cookie, Linux 5.15)."""
    return _loads(c.BPF_PROG_TYPE_TRACEPOINT, _call_program(c.BPF_FUNC_get_attach_cookie), token_fd)
