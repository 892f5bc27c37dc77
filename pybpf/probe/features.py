"""What else this kernel can do: instructions, sizes, and behaviour that programs and loaders rely on.

Each question is the smallest call that shows the feature; no version is compared. The version in the table only says
which kernel brought it. Source: tools/lib/bpf/features.c and tools/bpf/bpftool/feature.c of the kernel.
"""

from __future__ import annotations

import errno
import sys

from pybpf import constants as c
from pybpf import syscall
from pybpf.asm import slots
from pybpf.asm.instruction import Instruction, encode
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BPFError
from pybpf.probe.answer import Answer, ask, kept, undecided
from pybpf.probe.programs import EXIT, MOVE, RETURN_0, has_helper, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.syscall.fd import FdLike

    Probe = Callable[[FdLike | None], Answer]

FILTER = c.BPF_PROG_TYPE_SOCKET_FILTER


def _loads(*code: Instruction) -> Probe:
    return lambda token_fd: load(FILTER, encode(code), token_fd=token_fd)


def _large_programs(token_fd: FdLike | None) -> Answer:
    code = encode([Instruction(MOVE, imm=1)] * c.BPF_MAXINSNS + [EXIT])
    return load(FILTER, code, log=None, token_fd=token_fd)


def _program_names(token_fd: FdLike | None) -> Answer:
    return load(FILTER, RETURN_0, name="pybpf_nametest", token_fd=token_fd)


def _global_data(token_fd: FdLike | None) -> Answer:
    """A program that writes to the value of a map by its address."""
    try:
        with syscall.map_create(
            c.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=32, max_entries=1, token_fd=token_fd
        ) as array:
            code = [
                Instruction(slots.LDIMM64, 1, c.BPF_PSEUDO_MAP_VALUE, imm=array.fileno(), high=16),
                Instruction(0x7A, 1, imm=42),
                Instruction(MOVE),
                EXIT,
            ]
            return load(FILTER, encode(code), token_fd=token_fd)
    except BPFError as error:
        return undecided(error)


def _array_mmap(token_fd: FdLike | None) -> Answer:
    from pybpf.probe.maps import create

    return create(c.BPF_MAP_TYPE_ARRAY, token_fd=token_fd, map_flags=c.BPF_F_MMAPABLE)


def _expected_attach_type(token_fd: FdLike | None) -> Answer:
    wanted = c.BPF_CGROUP_INET_SOCK_CREATE
    return load(c.BPF_PROG_TYPE_CGROUP_SOCK, RETURN_0, expected_attach_type=wanted, token_fd=token_fd)


def _memcg_accounting(token_fd: FdLike | None) -> Answer:
    """The helper bpf_ktime_get_coarse_ns came with the release that charges BPF's memory to the memory cgroup.

    It is asked without `pybpf.memlock`, which asks this question.
    """
    code = encode([Instruction(slots.CALL, imm=c.BPF_FUNC_ktime_get_coarse_ns), EXIT])
    buffer = syscall.LogBuffer(4096)
    try:
        syscall.prog_load(FILTER, code, log_level=1, log_buffer=buffer, token_fd=token_fd).close()
    except BPFError as error:
        verdict = "no" if buffer.text else "cannot tell"
        return Answer(verdict, error.command, error.errno or 0, buffer.text)  # type: ignore[arg-type]
    return Answer("yes", "BPF_PROG_LOAD")


def _context_tags(token_fd: FdLike | None) -> Answer:
    """A subprogram calls a helper that takes nothing but the context, and gets its argument by the tag alone."""
    builder = BTFBuilder()
    number, pointer = builder.add_int("int", 4, 32, 1), builder.add_ptr(0)
    main = builder.add_func("a", builder.add_func_proto(number, [("a", pointer)]))
    tagged = builder.add_func("b", builder.add_func_proto(number, [("b", pointer)]))
    builder.add_decl_tag("arg:ctx", tagged, 0)
    code = [
        Instruction(slots.CALL, src=c.BPF_PSEUDO_CALL, imm=1),
        EXIT,
        Instruction(slots.CALL, imm=c.BPF_FUNC_get_func_ip),
        EXIT,
    ]
    func_info = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, main, 2, tagged))
    try:
        with syscall.btf_load(builder.to_bytes(), token_fd=token_fd) as btf:
            kind = c.BPF_PROG_TYPE_KPROBE
            return load(kind, encode(code), btf_fd=btf, func_info=func_info, token_fd=token_fd)
    except BPFError as error:  # the kernel knows no declaration tags, or may not be asked
        return Answer("cannot tell" if isinstance(error, PermissionError) else "no", error.command, error.errno or 0)


def _full_range_offsets(token_fd: FdLike | None) -> Answer:
    """The probe points behind the end of a value. The verifier refuses it either way, with different words."""
    try:
        with syscall.map_create(
            c.BPF_MAP_TYPE_ARRAY, key_size=4, value_size=1, max_entries=1, token_fd=token_fd
        ) as array:
            far = Instruction(slots.LDIMM64, 1, c.BPF_PSEUDO_MAP_VALUE, imm=array.fileno(), high=1 << 30)
            code = encode([far, Instruction(MOVE), EXIT])
            words = "invalid access to map value pointer"
            return load(c.BPF_PROG_TYPE_TRACEPOINT, code, log=words, token_fd=token_fd)
    except BPFError as error:
        return undecided(error)


def _module_btf(token_fd: FdLike | None) -> Answer:
    """The kernel tells the name of a BTF object, which those of modules have."""
    from pybpf.probe.btf import integer, load_btf
    from pybpf.syscall.fd import fileno
    from pybpf.syscall.invoke import invoke
    from pybpf.syscall.record import Record

    def obj_get_info_by_fd(fd: FdLike) -> None:
        info = Record("bpf_btf_info")
        info.point("name", bytearray(16))
        info.put(name_len=16)
        record = Record("BPF_OBJ_GET_INFO_BY_FD")
        record.put(bpf_fd=fileno(fd), info_len=len(info.data))
        record.point("info", info.data)
        invoke(record)

    try:
        with load_btf(integer, token_fd) as btf:
            return ask(obj_get_info_by_fd, btf)
    except BPFError as error:
        return undecided(error)


def _kernel_btf(token_fd: FdLike | None) -> Answer:
    from pybpf.btf import kernel
    from pybpf.errors import BTFError

    try:
        return Answer("yes", kernel.vmlinux().name)
    except (BTFError, OSError) as error:
        return Answer("cannot tell" if isinstance(error, PermissionError) else "no", kernel.SYSFS, reason=str(error))


def _kprobes(token_fd: FdLike | None) -> Answer:
    from pybpf.links.kprobe import NO_KPROBES_HINT, has_kprobes

    return Answer("yes", "perf_event_open") if has_kprobes() else Answer("no", "kprobe PMU", reason=NO_KPROBES_HINT)


def _uprobes(token_fd: FdLike | None) -> Answer:
    from pybpf.links.perf import pmu_type

    if pmu_type("uprobe") is not None:
        return Answer("yes", "perf_event_open")
    return Answer("no", "uprobe PMU", reason="the kernel has none (CONFIG_UPROBE_EVENTS, Linux 4.17)")


def _uprobe_multi_pid(token_fd: FdLike | None) -> Answer:
    """Attach to a folder, which is refused as no file (EBADF), or as no process (EINVAL).

    Kernels that took `pid` for a thread look at the file first.
    """
    kind = c.BPF_TRACE_UPROBE_MULTI
    try:
        program = syscall.prog_load(c.BPF_PROG_TYPE_KPROBE, RETURN_0, expected_attach_type=kind, token_fd=token_fd)
    except BPFError as error:
        return undecided(error)
    with program:
        answers = [
            ask(syscall.link_create, program, -1, kind, path="/", offsets=[0], pid=pid, yes=(errno.EBADF,))
            for pid in (0, (1 << 32) - 1)
        ]
    if answers[0] and answers[1].errno == errno.EINVAL:
        return answers[0]
    return Answer("no" if answers[0].is_known else "cannot tell", answers[0].command, answers[0].errno)


def _syscall_wrapper(token_fd: FdLike | None) -> Answer:
    from pybpf.symbols.kallsyms import has_syscall_wrapper

    try:
        return Answer("yes" if has_syscall_wrapper() else "no", "the kernel's symbols")
    except BPFError as error:
        return undecided(error)


def _jit(token_fd: FdLike | None) -> Answer:
    """A loaded program tells the size of its machine code."""
    try:
        with syscall.prog_load(FILTER, RETURN_0, token_fd=token_fd) as program:
            size = syscall.prog_info(program).jited_prog_len
    except BPFError as error:
        return undecided(error)
    reason = f"a program of two instructions has {size} bytes of machine code"
    return Answer("yes" if size else "no", "BPF_OBJ_GET_INFO_BY_FD", reason="" if size else reason)


def _cookies(token_fd: FdLike | None) -> Answer:
    return has_helper("tracepoint", "get_attach_cookie", token_fd=token_fd)


def _probe_read_kernel(token_fd: FdLike | None) -> Answer:
    return has_helper("tracepoint", "probe_read_kernel", token_fd=token_fd)


def _token(token_fd: FdLike | None) -> Answer:
    from pybpf.probe.commands import has_command

    return has_command("token_create")


_SIGN = (Instruction(0xBF, off=8), Instruction(0x7B, 10, 0, off=-8), Instruction(0x91, 0, 10, off=-8))
_SWAP, _SIGNED_DIVISION = Instruction(0xD7, imm=16), Instruction(0x37, off=1, imm=1)
_LONG_JUMP = (Instruction(0x16, off=1, imm=1), Instruction(0x06, imm=1), Instruction(MOVE, imm=1))
_DECREMENT, _LESS, _WIDE = Instruction(0x07, imm=-1), Instruction(0xC5, off=1), Instruction(0xC6, off=1)

FEATURES: dict[str, tuple[Probe, str]] = {
    "jit": (_jit, "programs are compiled to machine code"),
    "kernel_btf": (_kernel_btf, "the kernel's types can be read: CO-RE, fentry, LSM (Linux 5.4)"),
    "module_btf": (_module_btf, "BTF objects have names, modules have BTF (Linux 5.11)"),
    "memcg_accounting": (_memcg_accounting, "memory is charged to the cgroup, not to RLIMIT_MEMLOCK (Linux 5.11)"),
    "program_names": (_program_names, "programs have names (Linux 4.15)"),
    "expected_attach_type": (_expected_attach_type, "programs are loaded for a hook (Linux 4.17)"),
    "large_programs": (_large_programs, "more than 4096 instructions (Linux 5.2)"),
    "bounded_loops": (
        _loads(Instruction(MOVE, imm=10), _DECREMENT, Instruction(0x55, off=-2), EXIT),
        "loops (Linux 5.3)",
    ),
    "isa_v2": (_loads(Instruction(MOVE), _LESS, Instruction(MOVE, imm=1), EXIT), "jumps if less (Linux 4.14)"),
    "isa_v3": (_loads(Instruction(MOVE), _WIDE, Instruction(MOVE, imm=1), EXIT), "32-bit jumps (Linux 5.1)"),
    "isa_v4": (
        # all of them: stable releases of 6.1 have the jumps alone
        _loads(Instruction(MOVE), *_SIGN, _SWAP, _SIGNED_DIVISION, *_LONG_JUMP, EXIT),
        "long jumps, sign extension, byte swaps (Linux 6.6)",
    ),
    "global_data": (_global_data, "global variables (Linux 5.2)"),
    "array_mmap": (_array_mmap, "arrays as shared memory (Linux 5.5)"),
    "probe_read_kernel": (_probe_read_kernel, "reads of kernel and of user memory are told apart (Linux 5.5)"),
    "cookies": (_cookies, "attachments carry a cookie (Linux 5.15)"),
    "context_tags": (_context_tags, "the declaration tag arg:ctx (Linux 6.8)"),
    "full_range_offsets": (
        _full_range_offsets,
        "variables anywhere in a map's value, not in its first 512 MiB only (Linux 7.0)",
    ),
    "token": (_token, "BPF tokens, for user namespaces (Linux 6.9)"),
    "uprobe_multi_pid": (_uprobe_multi_pid, "one link for many uprobes, of one process if need be (Linux 6.10)"),
    "kprobes": (_kprobes, "programs at kernel functions"),
    "uprobes": (_uprobes, "programs at functions of executables"),
    "syscall_wrapper": (_syscall_wrapper, "system calls enter through functions that take a pointer to the registers"),
}
"""Name -> how it is asked for, and what it is."""


def has_feature(name: str, *, token_fd: FdLike | None = None) -> Answer:
    """Whether this kernel can do one of the things in `FEATURES`.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in FEATURES:
        raise ValueError(f"no feature is called {name!r}: there are {', '.join(FEATURES)}")
    return kept(("feature", name), lambda: FEATURES[name][0](token_fd), token_fd)
