"""Programs in the kernel as text: the instructions that the verifier left, and the machine code made of them.

Rules of this module:

* The text is bpftool's, with the lines of source as the verifier's log has them.
* Names come from /proc/kallsyms; where addresses are hidden, numbers stay numbers.
* Disassembling machine code needs the package capstone (``pip install pybpf[capstone]``).

Source: bpftool's xlated_dumper.c and jit_disasm.c, by what they print.
"""

from __future__ import annotations

import errno
import sys
from struct import iter_unpack

from pybpf import constants as c
from pybpf import syscall
from pybpf.asm.disasm import disassemble
from pybpf.asm.instruction import decode
from pybpf.asm.listing import interleave, source_lines
from pybpf.asm.slots import CALL
from pybpf.errors import BPFError, BPFPermissionError, BTFError, NotSupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pybpf.asm.instruction import Instruction
    from pybpf.btf.reader import BTF
    from pybpf.syscall.fd import FdLike
    from pybpf.syscall.info import ProgramInfo

CAPSTONE = {
    "x86_64": ("CS_ARCH_X86", "CS_MODE_64"),
    "i386": ("CS_ARCH_X86", "CS_MODE_32"),
    "aarch64": ("CS_ARCH_ARM64", "CS_MODE_ARM"),
    "arm": ("CS_ARCH_ARM", "CS_MODE_ARM"),
    "riscv64": ("CS_ARCH_RISCV", "CS_MODE_RISCV64"),
    "ppc64": ("CS_ARCH_PPC", "CS_MODE_64"),
    "s390x": ("CS_ARCH_SYSZ", "CS_MODE_BIG_ENDIAN"),
}
"""Machine -> the names of capstone's constants for it."""


def translated(program: FdLike) -> list[str]:
    """The program after the verifier, as ``bpftool prog dump xlated`` prints it, with lines of source.

    Raises:
        BPFPermissionError: the kernel does not give its instructions away (CAP_SYS_ADMIN, or CAP_BPF and CAP_PERFMON).
    """
    info = syscall.prog_info(program, xlated=True, jited_ksyms=True, func_info=True, line_info=True)
    if not info.xlated:
        raise _hidden("instructions")
    btf = _btf(info)
    words = _Words(info)
    lines = interleave(
        disassemble(info.xlated, calls=words.callee, constants=words.constant),
        {} if btf is None else source_lines(btf, _rows(info.line_info, info.line_info_rec_size)),
    )
    titles = {} if btf is None else _function_titles(info, btf)
    result: list[str] = []
    for line in lines:
        if not line.startswith(";"):
            title = titles.pop(int(line.partition(":")[0]), None)
            if title is not None:
                at = len(result) - (bool(result) and result[-1].startswith(";"))
                result.insert(at, title)
        result.append(line)
    return result


def jited(program: FdLike) -> list[str]:
    """The machine code of the program, function by function, with lines of source.

    Raises:
        NotSupportedError: the program is not compiled (net.core.bpf_jit_enable), or capstone is not installed or does
            not know this machine.
        BPFPermissionError: the kernel does not give its code away.
    """
    info = syscall.prog_info(
        program,
        jited=True,
        jited_ksyms=True,
        jited_func_lens=True,
        func_info=True,
        line_info=True,
        jited_line_info=True,
    )
    if not info.jited_prog_len:
        raise NotSupportedError(
            errno.EOPNOTSUPP, "BPF_OBJ_GET_INFO_BY_FD", f"program {info.name!r}", "It is not compiled to machine code"
        )
    if not info.jited:
        raise _hidden("machine code")
    decoder = _decoder()
    btf = _btf(info)
    sources: dict[int, str] = {}
    if btf is not None and info.jited_line_info:
        rows = zip(info.jited_line_info, _rows(info.line_info, info.line_info_rec_size), strict=False)
        sources = source_lines(btf, ((address, *row[1:]) for address, row in rows))
    lengths = info.jited_func_lens or [len(info.jited)]
    starts = info.jited_ksyms or [0]
    names = _symbols(starts)
    lines: list[str] = []
    at = 0
    for start, length in zip(starts, lengths, strict=True):
        lines.append(f"{names.get(start, info.name)}:")
        for instruction in decoder.disasm(info.jited[at : at + length], start):
            if instruction.address in sources:
                lines.append(sources[instruction.address])
            code = f"{instruction.mnemonic} {instruction.op_str}".rstrip()
            lines.append(f"{instruction.address - start:4x}:\t{code}")
        at += length
    return lines


def _decoder() -> Any:
    from pybpf.syscall.sysno import MACHINE

    try:
        import capstone
    except ImportError:
        raise NotSupportedError(
            errno.EOPNOTSUPP, "capstone", "machine code", "Reading it needs `pip install pybpf[capstone]`"
        ) from None
    if MACHINE not in CAPSTONE:
        raise NotSupportedError(errno.EOPNOTSUPP, "capstone", "machine code", f"It is not read on {MACHINE}")
    architecture, mode = CAPSTONE[MACHINE]
    order = capstone.CS_MODE_LITTLE_ENDIAN if sys.byteorder == "little" else capstone.CS_MODE_BIG_ENDIAN
    return capstone.Cs(getattr(capstone, architecture), getattr(capstone, mode) | order)


def _hidden(what: str) -> BPFError:
    hint = "The kernel hides them: kernel.kptr_restrict is set, or CAP_SYSLOG is missing"
    return BPFPermissionError(errno.EPERM, "BPF_OBJ_GET_INFO_BY_FD", what, hint)


def _btf(info: ProgramInfo) -> BTF | None:
    """The program's type information, or None when it has none or this process may not open it."""
    from pybpf.maps import btf_by_id

    if not info.btf_id:
        return None
    try:
        return btf_by_id(info.btf_id)
    except (BPFError, BTFError):
        return None


def _rows(data: bytes, size: int) -> Iterable[tuple[int, ...]]:
    return iter_unpack(f"={size // 4}I", data) if data else ()


def _function_titles(info: ProgramInfo, btf: BTF) -> dict[int, str]:
    """The name of each function by its first slot."""
    rows = _rows(info.func_info, info.func_info_rec_size)
    return {start: f"{btf.name_of(type_id)}:" for start, type_id, *_ in rows}


def _symbols(addresses: Iterable[int]) -> dict[int, str]:
    """The kernel's names of addresses, as far as there are any and they can be seen."""
    from pybpf.symbols.kallsyms import functions

    wanted = set(addresses) - {0}
    found: dict[int, str] = {}
    if wanted:
        try:
            for name, address in functions():
                if address in wanted:
                    found.setdefault(address, name)
        except BPFError:
            pass
    return found


class _Words:
    """What calls and constants of a loaded program refer to."""

    def __init__(self, info: ProgramInfo) -> None:
        self._starts = info.jited_ksyms
        calls = [insn for insn in decode(info.xlated) if insn.code == CALL]
        self._base = self._find_base() if calls else 0
        self._names = _symbols(map(self._address, calls))

    @staticmethod
    def _find_base() -> int:
        """The address that calls of helpers count from; 0 when it cannot be seen."""
        from pybpf.symbols.kallsyms import kernel_addresses

        try:
            return kernel_addresses(["__bpf_call_base"]).get("__bpf_call_base", (0,))[0]
        except BPFError:
            return 0

    def _address(self, insn: Instruction) -> int:
        """Where a call leads to; 0 when that is not known."""
        if insn.src == c.BPF_PSEUDO_CALL:
            return self._starts[insn.imm] if 0 <= insn.imm < len(self._starts) else 0
        return self._base + insn.imm if self._base else 0

    def callee(self, _index: int, insn: Instruction) -> str | None:
        address = self._address(insn)
        name = self._names.get(address)
        if insn.src == c.BPF_PSEUDO_CALL:
            if not address:
                return None
            return f"pc{insn.off:+d}#{name or f'{address:#x}'}"
        return f"{name}#{insn.imm}" if name else None

    def constant(self, _index: int, insn: Instruction) -> str | None:
        if insn.src == c.BPF_PSEUDO_MAP_FD:
            return f"map[id:{insn.imm}]"
        if insn.src == c.BPF_PSEUDO_MAP_VALUE:
            return f"map[id:{insn.imm}][0]+{insn.high}"
        if insn.src == c.BPF_PSEUDO_FUNC:
            return f"subprog[{insn.imm:+d}]"
        return None
