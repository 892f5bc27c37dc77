"""Where the arguments of a USDT probe are: ``"-4@-20(%rbp) 8@%rdi 8@$5"``.

An argument is its size in bytes (negative for a signed one), ``@``, and an operand in the assembler's own words:

| machine | memory | register | constant |
|---|---|---|---|
| x86-64, i386 | ``-20(%rbp)``, ``(%rax,%rcx,8)``, ``4+counter(%rip)`` | ``%rdi`` | ``$5`` |
| arm64 | ``[sp, 12]`` | ``x0`` | ``5`` |
| arm | ``[fp, #-8]`` | ``r0`` | ``#5`` |
| s390x | ``160(%r15)`` | ``%r2`` | ``5`` |
| riscv | ``-24(s0)`` | ``a0`` | ``5`` |

A variable of the program (``counter(%rip)``) is as far from the instruction in every process, and the address of the
instruction is in a register.

A register is known by its offset in what a uprobe program gets as its context, struct pt_regs (user_pt_regs on arm64
and s390x).

Source: usdt.c of libbpf; arch/*/include/uapi/asm/ptrace.h of the kernel.
"""

from __future__ import annotations

import re

from pybpf.errors import ObjectError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CONSTANT, REGISTER, MEMORY, INDEXED_MEMORY = range(4)
"""Kinds of arguments, with the numbers that programs know (enum __bpf_usdt_arg_type of usdt.bpf.h)."""

MAX_ARGUMENTS = 12
"""More have no room in what the program reads (BPF_USDT_MAX_ARG_CNT)."""

SHIFTS = {"1": 0, "2": 1, "4": 2, "8": 3}


class UsdtArgument:
    """One argument.

    Attributes:
        kind: CONSTANT, REGISTER, MEMORY or INDEXED_MEMORY.
        value: of a constant; for memory, what is added to the register.
        register: the offset of the register.
        index: the offset of the index register.
        shift: by how many bits the index is shifted to the left.
        size: 1, 2, 4 or 8 bytes.
        is_signed: whether it is to be sign-extended.
    """

    __slots__ = ("index", "is_signed", "kind", "register", "shift", "size", "value")

    def __init__(self, size: int, kind: int, value: int = 0, register: int = 0, index: int = 0, shift: int = 0) -> None:
        self.size = abs(size)
        self.is_signed = size < 0
        self.kind = kind
        self.value = value
        self.register = register
        self.index = index
        self.shift = shift

    def facts(self) -> tuple[int, ...]:
        """Everything in it, as a tuple that is equal for equal arguments."""
        return (self.kind, self.size, self.is_signed, self.value, self.register, self.index, self.shift)


class Dialect:
    """How the operands of one machine look.

    Attributes:
        registers: the offset of each register, by every name that it has.
        operand: an expression of `re` with the groups base, offset, index, scale; ahead, symbol, behind; register;
            constant.
    """

    __slots__ = ("operand", "registers")

    def __init__(self, registers: dict[str, int], operand: str) -> None:
        self.registers = registers
        self.operand = re.compile(rf"\s*(?P<size>{NUMBER})\s*@\s*(?:" + operand + r")(?=\s|$)")


def _in_order(names: str, size: int) -> dict[str, int]:
    """Offsets of members that follow one another, from the first one on."""
    return {name: number * size for number, name in enumerate(names.split())}


NUMBER = r"[-+]?\d{1,20}"
"""What 64 bits can hold has no more digits; int() refuses to read some thousands of them."""

_X86_OPERAND = (
    rf"(?P<offset>{NUMBER})?\s*\(\s*%(?P<base>\w+)\s*(?:,\s*%(?P<index>\w+)\s*(?:,\s*(?P<scale>\d+)\s*)?)?\)"
    rf"|(?:(?P<ahead>{NUMBER})\+)?(?P<symbol>[A-Za-z_.][\w.]*)(?P<behind>[-+]\d{{1,20}})?\(%rip\)"
    rf"|%(?P<register>\w+)|\$(?P<constant>{NUMBER})"
)
_S390_OPERAND = rf"(?P<offset>{NUMBER})\s*\(\s*%(?P<base>\w+)\s*\)|%(?P<register>\w+)|(?P<constant>{NUMBER})"
_ARM64_OPERAND = (
    rf"\[\s*(?P<base>[a-z0-9]+)\s*(?:,\s*(?P<offset>{NUMBER})\s*)?\]"
    rf"|(?P<constant>{NUMBER})|(?P<register>[a-z][a-z0-9]*)"
)
_ARM_OPERAND = (
    rf"\[\s*(?P<base>[a-z0-9]+)\s*(?:,\s*#(?P<offset>{NUMBER})\s*)?\]"
    rf"|#(?P<constant>{NUMBER})|(?P<register>[a-z][a-z0-9]*)"
)
_RISCV_OPERAND = (
    rf"(?P<offset>{NUMBER})\s*\(\s*(?P<base>[a-z0-9]+)\s*\)|(?P<constant>{NUMBER})|(?P<register>[a-z][a-z0-9]*)"
)


def _x86_64_registers() -> dict[str, int]:
    found = _in_order("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss", 8)
    del found["orig_rax"], found["cs"], found["eflags"], found["ss"]
    for letter in "abcd":
        for name in (f"e{letter}x", f"{letter}x", f"{letter}l"):
            found[name] = found[f"r{letter}x"]
    for pair in ("si", "di", "bp", "sp"):
        for name in (f"e{pair}", pair, f"{pair}l"):
            found[name] = found[f"r{pair}"]
    for number in range(8, 16):
        for ending in "dwb":
            found[f"r{number}{ending}"] = found[f"r{number}"]
    found["eip"] = found["rip"]
    return found


def _i386_registers() -> dict[str, int]:
    found = _in_order("ebx ecx edx esi edi ebp eax xds xes xfs xgs orig_eax eip xcs eflags esp xss", 4)
    found = {name: offset for name, offset in found.items() if name[0] == "e" and name != "eflags"}
    for name in list(found):
        if name != "eip":
            found[name[1:]] = found[name]
            found[f"{name[1]}l" if name[2] == "x" else f"{name[1:]}l"] = found[name]
    return found


def _s390x_registers() -> dict[str, int]:
    names = " ".join(f"r{number}" for number in range(16))
    found = _in_order("args psw_mask psw_addr " + names, 8)
    return {name: offset for name, offset in found.items() if name[0] == "r"}


def _arm64_registers() -> dict[str, int]:
    return _in_order(" ".join(f"x{number}" for number in range(31)) + " sp", 8)


def _riscv_registers(size: int) -> dict[str, int]:
    found = _in_order(
        "pc ra sp gp tp t0 t1 t2 s0 s1 a0 a1 a2 a3 a4 a5 a6 a7 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11 t3 t4 t5 t6", size
    )
    del found["pc"]
    return found


def _arm_registers() -> dict[str, int]:
    return _in_order(" ".join(f"r{number}" for number in range(11)) + " fp ip sp lr pc", 4)


_MAKERS = {
    "x86_64": lambda: Dialect(_x86_64_registers(), _X86_OPERAND),
    "i386": lambda: Dialect(_i386_registers(), _X86_OPERAND),
    "aarch64": lambda: Dialect(_arm64_registers(), _ARM64_OPERAND),
    "arm": lambda: Dialect(_arm_registers(), _ARM_OPERAND),
    "s390x": lambda: Dialect(_s390x_registers(), _S390_OPERAND),
    "riscv64": lambda: Dialect(_riscv_registers(8), _RISCV_OPERAND),
    "riscv32": lambda: Dialect(_riscv_registers(4), _RISCV_OPERAND),
}
_dialects: dict[str, Dialect] = {}


def dialect(machine: str) -> Dialect | None:
    """The operands of a machine, by uname(2)'s name of it or one that begins so; None for those without USDT."""
    if machine[:1] == "i" and machine.endswith("86"):
        machine = "i386"
    elif machine.startswith("arm"):
        machine = "arm"
    if machine not in _MAKERS:
        return None
    if machine not in _dialects:
        _dialects[machine] = _MAKERS[machine]()
    return _dialects[machine]


def parse_arguments(text: str, machine: str, distance: Callable[[str], int] | None = None) -> list[UsdtArgument]:
    """What a probe says about its arguments.

    Args:
        text: as the note has it.
        machine: whose operands and registers these are, as in uname(2): that of the kernel.
        distance: tells how far a variable of this name is from the instruction, in bytes; None: such arguments are
            refused.

    Raises:
        ObjectError: an argument is not understood; a machine that is not known; more than 12 arguments; a variable
            whose place is not known.
    """
    known = dialect(machine)
    if known is None:
        raise ObjectError(f"the arguments of USDT probes of {machine} are not known")
    found: list[UsdtArgument] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = known.operand.match(text, at)
        what = f"argument {len(found) + 1} of {text!r}"
        if match is None:
            raise ObjectError(f"{what} is not of a form of {machine}: {text[at:].strip()!r}")
        if len(found) == MAX_ARGUMENTS:
            raise ObjectError(f"{text!r} has more than {MAX_ARGUMENTS} arguments")
        found.append(_argument(known, match, what, distance))
        at = match.end()
    return found


def _argument(known: Dialect, match: re.Match[str], what: str, distance: Callable[[str], int] | None) -> UsdtArgument:
    size = int(match["size"])
    groups = match.groupdict()
    if abs(size) not in (1, 2, 4, 8):
        raise ObjectError(f"{what} is of {size} bytes")

    def register(group: str) -> int:
        place = known.registers.get(match[group])
        if place is None:
            raise ObjectError(f"{what} names a register that programs cannot read: {match[group]!r}")
        return place

    if match["constant"] is not None:
        return UsdtArgument(size, CONSTANT, int(match["constant"]))
    if match["register"] is not None:
        return UsdtArgument(size, REGISTER, register=register("register"))
    if groups.get("symbol") is not None:
        if distance is None:
            raise ObjectError(f"{what} is the variable {match['symbol']!r}, whose place is not known here")
        away = distance(match["symbol"]) + int(match["ahead"] or 0) + int(match["behind"] or 0)
        return UsdtArgument(size, MEMORY, away, known.registers["rip"])
    offset = int(match["offset"] or 0)
    if groups.get("index") is None:
        return UsdtArgument(size, MEMORY, offset, register("base"))
    scale = match["scale"] or "1"
    if scale not in SHIFTS:
        raise ObjectError(f"{what} has a scale of {scale}, which is none of 1, 2, 4 and 8")
    return UsdtArgument(size, INDEXED_MEMORY, offset, register("base"), register("index"), SHIFTS[scale])
