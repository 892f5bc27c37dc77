"""The processor of the simulated kernel: every instruction of the BPF instruction set, one at a time.

Rules of this module:

* Registers hold unsigned 64-bit numbers, or None: nobody has written to it yet, and reading it is an error, as it is
  for the verifier.
* Division by zero gives 0, modulo by zero leaves the number, shifts count modulo the width, 32-bit results have zeros
  above: what the kernel's interpreter and its JIT compilers do.
* A helper that calls back into the program is a generator: it yields the function to call and its arguments, and gets
  the result. So no instruction runs inside another, and a run can stop between any two.

Source: Documentation/bpf/standardization/instruction-set.rst; ___bpf_prog_run() in kernel/bpf/core.c.
"""

from __future__ import annotations

from types import GeneratorType

from pybpf.errors import SimulationError
from pybpf.sim.memory import Region

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from pybpf.asm.instruction import Instruction
    from pybpf.sim.code import Code
    from pybpf.sim.memory import Memory

    Callback = Generator[tuple[int, tuple[int, ...]], int, int]
    Helper = Callable[..., Any]

MASK32 = 0xFFFFFFFF
MASK64 = 0xFFFFFFFFFFFFFFFF

STACK_SIZE = 512
"""Bytes of stack of one function (MAX_BPF_STACK)."""
MAX_FRAMES = 8
"""Functions deep (MAX_CALL_FRAMES)."""
MAX_TAIL_CALLS = 33
"""MAX_TAIL_CALL_CNT."""
MAY_GOTO_LIMIT = 8 << 20
"""How often a may_goto is not taken (BPF_MAX_LOOPS)."""

# Instruction classes, the lowest three bits of an opcode.
LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_MODE = 0xE0
_IMM, _ABS, _IND, _MEM, _MEMSX, _ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0
_REGISTER = 0x08

_END, _MOV = 0xD0, 0xB0
_CALL, _EXIT, _JA, _JCOND = 0x80, 0x90, 0x00, 0xE0
_FETCH, _XCHG, _CMPXCHG, _LOAD_ACQUIRE, _STORE_RELEASE = 0x01, 0xE1, 0xF1, 0x100, 0x110


def signed(value: int, bits: int) -> int:
    """The number that these bits mean in two's complement."""
    top = 1 << (bits - 1)
    return (value & ((1 << bits) - 1) ^ top) - top


def _divide(dst: int, src: int, bits: int, is_signed: bool) -> int:
    if not src:
        return 0
    if not is_signed:
        return dst // src
    a, b = signed(dst, bits), signed(src, bits)
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _modulo(dst: int, src: int, bits: int, is_signed: bool) -> int:
    if not src:
        return dst
    if not is_signed:
        return dst % src
    a, b = signed(dst, bits), signed(src, bits)
    return abs(a) % abs(b) * (-1 if a < 0 else 1)


def _move(dst: int, src: int, bits: int, off: int) -> int:
    return signed(src, off) if off in (8, 16, 32) else src


_ALU: dict[int, Callable[[int, int, int, int], int]] = {
    0x00: lambda dst, src, bits, off: dst + src,
    0x10: lambda dst, src, bits, off: dst - src,
    0x20: lambda dst, src, bits, off: dst * src,
    0x30: lambda dst, src, bits, off: _divide(dst, src, bits, off == 1),
    0x40: lambda dst, src, bits, off: dst | src,
    0x50: lambda dst, src, bits, off: dst & src,
    0x60: lambda dst, src, bits, off: dst << (src & bits - 1),
    0x70: lambda dst, src, bits, off: dst >> (src & bits - 1),
    0x80: lambda dst, src, bits, off: -dst,
    0x90: lambda dst, src, bits, off: _modulo(dst, src, bits, off == 1),
    0xA0: lambda dst, src, bits, off: dst ^ src,
    _MOV: _move,
    0xC0: lambda dst, src, bits, off: signed(dst, bits) >> (src & bits - 1),
}
"""The operation's bits of the opcode -> dst, src, width, offset -> result, of which the lowest bits count."""

_JUMPS: dict[int, Callable[[int, int, int], bool]] = {
    0x10: lambda dst, src, bits: dst == src,
    0x20: lambda dst, src, bits: dst > src,
    0x30: lambda dst, src, bits: dst >= src,
    0x40: lambda dst, src, bits: bool(dst & src),
    0x50: lambda dst, src, bits: dst != src,
    0x60: lambda dst, src, bits: signed(dst, bits) > signed(src, bits),
    0x70: lambda dst, src, bits: signed(dst, bits) >= signed(src, bits),
    0xA0: lambda dst, src, bits: dst < src,
    0xB0: lambda dst, src, bits: dst <= src,
    0xC0: lambda dst, src, bits: signed(dst, bits) < signed(src, bits),
    0xD0: lambda dst, src, bits: signed(dst, bits) <= signed(src, bits),
}

_ATOMICS: dict[int, Callable[[int, int], int]] = {
    0x00: lambda old, src: old + src,
    0x40: lambda old, src: old | src,
    0x50: lambda old, src: old & src,
    0xA0: lambda old, src: old ^ src,
}


class Frame:
    """One call of a function.

    Attributes:
        code: what runs, and `pc` the instruction that comes next.
        stack: its 512 bytes.
        saved: r6 to r9 of the caller.
        resume: the helper that called it back, or None.
    """

    __slots__ = ("code", "pc", "resume", "saved", "stack")

    def __init__(self, code: Code, pc: int, stack: Region, saved: list[int | None], resume: Callback | None) -> None:
        self.code = code
        self.pc = pc
        self.stack = stack
        self.saved = saved
        self.resume = resume


class CPU:
    """One run of a program.

    Args:
        code: the program.
        memory: what its pointers point into.
        call_helper: called with this and the helper's number; gives the helper as a function of five numbers.
        call_kfunc: the same for a kernel function, by name.
        arguments: what r1, r2 ... are at the start.

    Attributes:
        registers: r0 to r10.
        frames: the calls that are under way; the last one runs.
        steps: how many instructions were executed.
        done: whether the program has ended; `result` is then r0.
    """

    def __init__(
        self,
        code: Code,
        memory: Memory,
        call_helper: Callable[[CPU, int], Helper],
        call_kfunc: Callable[[CPU, str], Helper],
        arguments: tuple[int, ...] = (),
    ) -> None:
        self.memory = memory
        self._helper = call_helper
        self._kfunc = call_kfunc
        self.registers: list[int | None] = [None] * 11
        self.frames: list[Frame] = []
        self.steps = 0
        self.tail_calls = 0
        self.done = False
        self.result = 0
        self._may_goto: dict[tuple[int, int], int] = {}
        self._order = memory.byte_order
        self.packet_load: Callable[[int, int], int | None] | None = None
        self._push(code, 0, arguments, None)

    # Frames

    def _push(self, code: Code, pc: int, arguments: tuple[int, ...], resume: Callback | None) -> None:
        if len(self.frames) >= MAX_FRAMES:
            raise SimulationError(f"more than {MAX_FRAMES} functions deep")
        number = len(self.frames)
        title = "stack" if not number else f"stack of function {number}"
        stack = self.memory.map(Region(title, bytearray(STACK_SIZE)))
        self.frames.append(Frame(code, pc, stack, self.registers[6:10], resume))
        if resume is not None or not number:
            self.registers[:] = [None, *arguments, *[None] * (10 - len(arguments))]
        else:  # r1 to r5 are the caller's
            self.registers[6:10] = [None] * 4
            self.registers[0] = None
        self.registers[10] = stack.base + STACK_SIZE

    def _pop(self) -> None:
        result = self.registers[0]
        frame = self.frames[-1]
        # A subprogram may give nothing: compilers leave out a result that nobody uses.
        if result is None and (len(self.frames) == 1 or frame.resume is not None):
            raise SimulationError("r0 has no value at exit")
        self.frames.pop()
        self.memory.unmap(frame.stack)
        if not self.frames:
            self.done, self.result = True, result or 0
            return
        self.registers[1:6] = [None] * 5
        self.registers[6:10] = frame.saved
        self.registers[10] = self.frames[-1].stack.base + STACK_SIZE
        if frame.resume is not None:
            self._continue(frame.resume, result)

    def close(self) -> None:
        """Give back the memory of a run that has not come to its end."""
        while self.frames:
            self.memory.unmap(self.frames.pop().stack)

    @property
    def frame(self) -> Frame:
        """The one that runs. Raises SimulationError when the program has ended."""
        if not self.frames:
            raise SimulationError("the program has ended")
        return self.frames[-1]

    # Stepping

    def step(self) -> None:
        """Execute one instruction. Raises SimulationError; `frame` is then still the one of that instruction."""
        frame = self.frame
        code = frame.code
        index = frame.pc
        insn = code.instructions[index] if 0 <= index < len(code.instructions) else None
        if insn is None:
            raise SimulationError(f"there is no instruction {index}")
        self.steps += 1
        frame.pc = index + insn.slots
        try:
            _CLASSES[insn.code & 7](self, insn, frame)
        except BaseException:
            frame.pc = index
            raise

    def read(self, number: int) -> int:
        value = self.registers[number] if number < 11 else None
        if value is None:
            raise SimulationError(f"r{number} is read before it was written")
        return value

    def write(self, number: int, value: int) -> None:
        if number >= 10:
            raise SimulationError(f"r{number} cannot be written")
        self.registers[number] = value & MASK64

    # Arithmetic

    def _alu(self, insn: Instruction, frame: Frame) -> None:
        bits = 64 if insn.code & 7 == ALU64 else 32
        mask = (1 << bits) - 1
        operation = insn.code & 0xF0
        if operation == _END:
            self._swap(insn)
            return
        function = _ALU.get(operation)
        if function is None:
            raise SimulationError(f"opcode {insn.code:#04x} is no instruction")
        src = (self.read(insn.src) if insn.code & _REGISTER else insn.imm) & mask
        if operation == _MOV:
            if insn.code & _REGISTER and insn.off == 1 and bits == 64:  # addr_space_cast: one space is all there is
                self.write(insn.dst, src)
                return
            dst = 0
        else:
            dst = self.read(insn.dst) & mask
        self.write(insn.dst, function(dst, src, bits, insn.off) & mask)

    def _swap(self, insn: Instruction) -> None:
        """Byte order: le and be (32-bit class), unconditional bswap (64-bit class)."""
        size = insn.imm // 8
        if insn.imm not in (16, 32, 64):
            raise SimulationError(f"a swap of {insn.imm} bits")
        value = self.read(insn.dst) & ((1 << insn.imm) - 1)
        wanted = "big" if insn.code & _REGISTER else "little"
        if insn.code & 7 == ALU64 or wanted != self._order:
            value = int.from_bytes(value.to_bytes(size, "little"), "big")
        self.write(insn.dst, value)

    # Jumps and calls

    def _jump(self, insn: Instruction, frame: Frame) -> None:
        operation = insn.code & 0xF0
        is_32 = insn.code & 7 == JMP32
        if operation == _JA:
            self._jump_always(insn, frame, is_32)
        elif operation == _CALL and not is_32:
            self._call(insn, frame)
        elif operation == _EXIT and not is_32:
            self._pop()
        elif operation == _JCOND and not is_32:
            self._may(insn, frame)
        else:
            compare = _JUMPS.get(operation)
            if compare is None:
                raise SimulationError(f"opcode {insn.code:#04x} is no instruction")
            bits = 32 if is_32 else 64
            mask = (1 << bits) - 1
            src = (self.read(insn.src) if insn.code & _REGISTER else insn.imm) & mask
            if compare(self.read(insn.dst) & mask, src, bits):
                frame.pc += insn.off

    def _jump_always(self, insn: Instruction, frame: Frame, is_far: bool) -> None:
        if insn.code & _REGISTER:  # gotox
            frame.pc = frame.code.index_at(self.read(insn.dst))
        else:
            frame.pc += insn.imm if is_far else insn.off

    def _may(self, insn: Instruction, frame: Frame) -> None:
        """may_goto: go on until the budget is used up, then jump."""
        key = (len(self.frames), frame.pc)
        used = self._may_goto[key] = self._may_goto.get(key, 0) + 1
        if used > MAY_GOTO_LIMIT:
            frame.pc += insn.off

    def _call(self, insn: Instruction, frame: Frame) -> None:
        if insn.code & _REGISTER:  # callx
            self._push(frame.code, frame.code.index_at(self.read(insn.dst)), (), None)
        elif insn.src == 2 or frame.pc - 1 in frame.code.kernel_functions:  # in objects these look like subprograms
            name = frame.code.kernel_functions.get(frame.pc - 1, f"number {insn.imm}")
            self._run_helper(self._kfunc(self, name))
        elif insn.src == 1:
            self._push(frame.code, frame.pc + insn.imm, (), None)
        else:
            self._run_helper(self._helper(self, insn.imm))

    def _run_helper(self, function: Helper) -> None:
        """Give a helper the five argument registers, None for those without a value."""
        result = function(self, *self.registers[1:6])
        if isinstance(result, GeneratorType):
            self._continue(result, None)
        elif result is not None:  # None: it has taken care of the registers itself
            self.registers[1:6] = [None] * 5
            self.write(0, result)

    def _continue(self, callback: Callback, result: int | None) -> None:
        """Let a helper that calls back go on."""
        try:
            pc, arguments = callback.send(result) if result is not None else next(callback)
        except StopIteration as end:
            self.registers[1:6] = [None] * 5
            self.write(0, end.value)
            return
        self._push(self.frames[-1].code, pc, arguments, callback)

    def tail_call(self, code: Code, context: int) -> None:
        """Go on with another program, in place of the function that runs."""
        frame = self.frames[-1]
        frame.code, frame.pc = code, 0
        frame.stack.data[:] = bytes(STACK_SIZE)
        self.registers[:] = [None, context, *[None] * 8, frame.stack.base + STACK_SIZE]

    # Memory

    def _load_constant(self, insn: Instruction, frame: Frame) -> None:
        mode = insn.code & _MODE
        if mode == _IMM and insn.slots == 2:
            self.write(insn.dst, insn.imm64)
        elif mode in (_ABS, _IND):
            self._load_packet(insn, mode == _IND)
        else:
            raise SimulationError(f"opcode {insn.code:#04x} is no instruction")

    def _load_packet(self, insn: Instruction, indirect: bool) -> None:
        """The packet loads of classic BPF: in network byte order; beyond the packet the program ends with 0."""
        if self.packet_load is None:
            raise SimulationError("this kind of program has no packet loads")
        offset = insn.imm + (signed(self.read(insn.src), 32) if indirect else 0)
        value = self.packet_load(offset, _SIZES[insn.code & 0x18])
        self.registers[1:6] = [None] * 5
        self.write(0, value or 0)
        if value is None:
            self._pop()

    def _load(self, insn: Instruction, frame: Frame) -> None:
        size = _SIZES[insn.code & 0x18]
        mode = insn.code & _MODE
        if mode not in (_MEM, _MEMSX):
            raise SimulationError(f"opcode {insn.code:#04x} is no instruction")
        value = self.memory.load(self.read(insn.src) + insn.off & MASK64, size)
        self.write(insn.dst, signed(value, 8 * size) if mode == _MEMSX else value)

    def _store(self, insn: Instruction, frame: Frame) -> None:
        size = _SIZES[insn.code & 0x18]
        mode = insn.code & _MODE
        if mode == _ATOMIC and insn.code & 7 == STX:
            self._atomic(insn, size)
        elif mode == _MEM:
            value = self.read(insn.src) if insn.code & 7 == STX else insn.imm
            self.memory.store(self.read(insn.dst) + insn.off & MASK64, size, value & ((1 << 8 * size) - 1))
        else:
            raise SimulationError(f"opcode {insn.code:#04x} is no instruction")

    def _atomic(self, insn: Instruction, size: int) -> None:
        mask = (1 << 8 * size) - 1
        if insn.imm == _LOAD_ACQUIRE:  # the only one whose dst is no address
            self.write(insn.dst, self.memory.load(self.read(insn.src) + insn.off & MASK64, size))
            return
        address = self.read(insn.dst) + insn.off & MASK64
        src = self.read(insn.src) & mask
        if insn.imm == _STORE_RELEASE:
            self.memory.store(address, size, src)
            return
        function = _ATOMICS.get(insn.imm & ~_FETCH)
        if size < 4 or (function is None and insn.imm not in (_XCHG, _CMPXCHG)):
            raise SimulationError(f"atomic operation {insn.imm:#x} of {size} bytes is no instruction")
        old = self.memory.load(address, size)
        if insn.imm == _CMPXCHG:
            if old == self.read(0) & mask:
                self.memory.store(address, size, src)
            self.write(0, old)
        elif insn.imm == _XCHG:
            self.memory.store(address, size, src)
            self.write(insn.src, old)
        else:
            assert function is not None
            self.memory.store(address, size, function(old, src) & mask)
            if insn.imm & _FETCH:
                self.write(insn.src, old)


_CLASSES: dict[int, Callable[[CPU, Instruction, Frame], None]] = {
    LD: CPU._load_constant,
    LDX: CPU._load,
    ST: CPU._store,
    STX: CPU._store,
    ALU: CPU._alu,
    JMP: CPU._jump,
    JMP32: CPU._jump,
    ALU64: CPU._alu,
}
