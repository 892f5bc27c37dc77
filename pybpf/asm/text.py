"""Assembly as text: the kernel's words and LLVM's, read.

    .map counts array key=4 value=8 entries=1
    .program count xdp                      // a program, as SEC("xdp") says it

        *(u32 *)(r10 -4) = 0
        r1 = map[counts]
        r2 = r10
        r2 += -4
        call bpf_map_lookup_elem
        if r0 == 0 goto out
        r1 = 1
        lock *(u64 *)(r0 +0) += r1
    out:
        r0 = XDP_PASS
        exit

Rules of this module:

* Whatever `pybpf.asm.disassemble`, the verifier's log, bpftool or llvm-objdump print for an instruction is read back,
  with what they put before it: the slot's number, the opcode in parentheses, the bytes. ``goto pc+3`` and
  ``goto +0x3 <f+0x20>`` are the same; so are ``(r10 -4)`` and ``(r10 - 0x4)``.
* A line that begins with ``;`` is a comment (it is how disassemblers print source code); elsewhere ``;`` separates
  instructions. ``//`` and ``#`` after a blank begin comments too.
* ``r1 = N`` is a move if N is a signed 32-bit number, else it loads 64 bits; ``r1 = N ll`` always does. Conditional
  jumps take what the kernel prints: of ``if r1 == 0xffffffff`` the number is -1.
* Numbers may be names: those of ``.equ`` or of `pybpf.constants`.

| directive | meaning |
|---|---|
| ``.program NAME SECTION`` | the instructions that follow are a program |
| ``.function NAME`` | they are a subprogram |
| ``.map NAME TYPE key=N value=N entries=N flags=N`` | a map |
| ``.license TEXT`` | of all programs; GPL if it is left out |
| ``.equ NAME NUMBER`` | a name for a number |

| operand | meaning |
|---|---|
| ``map[NAME]``, ``map[fd:N]`` | a map |
| ``map[NAME][0]+N`` | the address of byte N of an array map's first value |
| ``subprog[NAME]`` | the address of a subprogram |
| ``ksym[NAME]`` | the address of a kernel symbol |
| ``call NAME`` | a helper, else a subprogram, else a kernel function |
"""

from __future__ import annotations

import re

from pybpf import constants as c
from pybpf.asm import opcodes as op
from pybpf.asm.assembler import Assembler
from pybpf.asm.instruction import Instruction
from pybpf.asm.operands import HALVES, WHOLE, WIDTHS, Memory, Register
from pybpf.asm.slots import LDIMM64
from pybpf.errors import ObjectError
from pybpf.mapspec import MapSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.spec import ObjectSpec

    Match = re.Match[str]

_COMMENT = re.compile(r"//.*|(?:^|\s)#.*|/\*.*?\*/")
_PREFIX = re.compile(r"(?:\d+:\s*)?(?:(?:[0-9a-f]{2} ){7}[0-9a-f]{2}(?: (?:[0-9a-f]{2} ){7}[0-9a-f]{2})?\s+)?")
_OPCODE = re.compile(r"\(([0-9a-f]{2})\)\s*")
_LABEL = re.compile(r"([A-Za-z_.$][\w.$]*):\s*")

_REGISTERS = {repr(one): one for one in (*WHOLE, *HALVES)}
_ALU = op.inverse(op.ALU_SIGN)
_SIGNED_ALU = op.inverse(op.SIGNED_ALU_SIGN)
_JUMPS = op.inverse(op.JUMP_SIGN)
_ATOMICS = op.inverse(op.ATOMIC_SIGN)
_FETCHES = op.inverse(op.FETCH_NAME)
_EXTENSIONS = {text.strip("()"): bits for bits, text in op.SIGN_EXTENSION.items()}
_MAP_TYPES = {name: number for number, name in enumerate(c.MAP_TYPE_NAMES) if name}
_MAP_FIELDS = {"key": "key_size", "value": "value_size", "entries": "max_entries", "flags": "flags"}

_REG = r"([rw]\d+)"
_WORD = r"([+-]?[\w.$]+)"
_MEM = rf"\(?\(?(?:([us]\d+) \*\)\()?{_REG}(?:\s*([+-])\s*(\w+))?\)?\)?"
"""``(u64 *)(r1 +8)`` within a call, or LLVM's ``r1 + 0x8``."""
_PLACE = rf"\*\(([us]\d+) \*\)\({_REG}(?:\s*([+-])\s*(\w+))?\)"
_TARGET = r"(?:pc)?([+-]?[\w.$]+)(?: <.*>)?"


def parse(source: str, spec: ObjectSpec) -> list[Assembler]:
    """Read assembly. Maps, the license and warnings go into `spec`.

    Raises:
        ObjectError: a line cannot be understood; the message has its number.
    """
    parser = _Parser(spec)
    for number, line in enumerate(source.splitlines(), 1):
        parser.line(number, line)
    return parser.routines


def parse_instruction(line: str) -> Instruction:
    """One instruction from its text.

    >>> parse_instruction("r1 += -8")
    Instruction(0x07, dst=1, src=0, off=0, imm=-8)

    Raises:
        ObjectError: it cannot be understood, or names something that only a whole program has.
    """
    from pybpf.spec import ObjectSpec

    routines = parse(line, ObjectSpec("asm"))
    if len(routines) != 1 or len(routines[0]) != 1 or routines[0].references:
        raise ObjectError(f"{line!r} is not one instruction that stands for itself")
    return routines[0].instructions[0]


class _Unclear(Exception):
    """A line is not understood; caught where its number is known."""


class _Parser:
    """Attributes: spec, what maps and the license go into; routines, the functions so far."""

    def __init__(self, spec: ObjectSpec) -> None:
        self.spec = spec
        self.routines: list[Assembler] = []
        self._names: dict[str, int] = {}
        self._opcode = -1

    @property
    def code(self) -> Assembler:
        """The function that is being written."""
        if not self.routines:
            self.routines.append(Assembler())
        return self.routines[-1]

    def line(self, number: int, line: str) -> None:
        """Read one line."""
        if line.lstrip().startswith(";"):
            return
        text = _COMMENT.sub("", line).strip()
        try:
            if text.startswith("."):
                self._directive(*text.split())
            else:
                for statement in text.split(";"):
                    self._labelled(statement.strip(), number, line.find(statement.strip()) + 1)
        except (_Unclear, ObjectError, ValueError) as error:
            raise ObjectError(f"{self.spec.name}: line {number}: {text!r}: {error}") from None

    def _labelled(self, statement: str, number: int, column: int) -> None:
        """An instruction with its labels before it."""
        while (label := _LABEL.match(statement)) is not None:
            self.code.label(label[1])
            statement = statement[label.end() :]
        statement = statement[_PREFIX.match(statement).end() :]  # type: ignore[union-attr]  # it matches the empty text
        opcode = _OPCODE.match(statement)
        self._opcode = -1
        if opcode is not None:
            self._opcode = int(opcode[1], 16)
            statement = statement[opcode.end() :]
        if statement:
            position = len(self.code)
            self._instruction(statement)
            if self._opcode not in (-1, self.code.instructions[position].code):
                raise _Unclear(f"its opcode is not {self._opcode:02x}")
            self.code.lines[position] = number, column, statement

    def _instruction(self, statement: str) -> None:
        for pattern, method in _FORMS:
            match = pattern.fullmatch(statement)
            if match is not None:
                method(self, match)
                return
        raise _Unclear("no such instruction")

    # Directives

    def _directive(self, name: str, *words: str) -> None:
        if name == ".program" and len(words) == 2:
            self.routines.append(Assembler(words[0], words[1].strip('"')))
        elif name == ".function" and len(words) == 1:
            self.routines.append(Assembler(words[0]))
        elif name == ".license" and words:
            self.spec.license = " ".join(words).strip('"')
        elif name == ".equ" and len(words) == 2:
            self._names[words[0].rstrip(",")] = self._number(words[1])
        elif name == ".map" and len(words) >= 2:
            self._map(*words)
        else:
            raise _Unclear("no such directive; there are .program, .function, .map, .license and .equ")

    def _map(self, name: str, type_name: str, *settings: str) -> None:
        if type_name not in _MAP_TYPES:
            raise _Unclear(f"no such type of maps: {type_name}")
        if name in self.spec.maps:
            raise _Unclear(f"the map {name!r} is there already")
        made = MapSpec(name, _MAP_TYPES[type_name])
        for setting in settings:
            key, _, value = setting.partition("=")
            if key not in _MAP_FIELDS:
                raise _Unclear(f"a map has {', '.join(_MAP_FIELDS)}, not {key!r}")
            setattr(made, _MAP_FIELDS[key], self._number(value))
        self.spec.maps[name] = made

    # Operands

    def _number(self, text: str) -> int:
        try:
            return int(text, 0)
        except ValueError:
            pass
        sign = -1 if text.startswith("-") else 1
        name = text.lstrip("+-")
        found = self._names.get(name, getattr(c, name, None))
        if not isinstance(found, int):
            raise _Unclear(f"{text!r} is no number, and no name of one")
        return sign * found

    def _register(self, text: str) -> Register:
        found = _REGISTERS.get(text)
        if found is None:
            raise _Unclear(f"there is no register {text}")
        return found

    def _operand(self, text: str) -> Register | int:
        return self._register(text) if re.fullmatch(_REG, text) else self._number(text)

    def _memory(self, width: str, base: str, sign: str | None, distance: str | None) -> Memory:
        if width not in WIDTHS:
            raise _Unclear(f"there is no type {width}")
        off = self._number(f"{sign}{distance}") if sign else 0
        return WIDTHS[width][self._register(base) + off]

    def _target(self, text: str) -> str | int:
        return self._number(text) if text[0] in "+-" else text

    # Instructions

    def exit(self, _match: Match) -> None:
        self.code.exit()

    def nospec(self, _match: Match) -> None:
        self.code.append(Instruction(op.NOSPEC))

    def jump(self, match: Match) -> None:
        method = {"goto": self.code.goto, "gotol": self.code.gotol, "may_goto": self.code.may_goto}[match[1]]
        method(self._target(match[2]))

    def jump_indirect(self, match: Match) -> None:
        self.code.gotox(self._register(match[1]))

    def jump_if(self, match: Match) -> None:
        operation = _JUMPS.get(match[2])
        if operation is None:
            raise _Unclear(f"nothing can be compared with {match[2]}")
        operand = self._operand(match[3])
        if isinstance(operand, int) and 0x80000000 <= operand <= 0xFFFFFFFF:
            operand -= 1 << 32
        self.code.jump(operation, self._register(match[1]), operand, self._target(match[4]))

    def call_register(self, match: Match) -> None:
        self.code.callx(self._register(match[1]))

    def call_relative(self, match: Match) -> None:
        self.code.append(Instruction(op.CALL, 0, c.BPF_PSEUDO_CALL, 0, int(match[1], 0)))

    def call_kernel_function(self, match: Match) -> None:
        self.code.append(Instruction(op.CALL, 0, c.BPF_PSEUDO_KFUNC_CALL, 0, int(match[1], 0)))

    def call_number(self, match: Match) -> None:
        self.code.call(int(match[1], 0))

    def call_name(self, match: Match) -> None:
        self.code.call(match[1])

    def negate(self, match: Match) -> None:
        if match[1] != match[2]:
            raise _Unclear("a register can only be negated in place")
        self.code.neg(self._register(match[1]))

    def extend(self, match: Match) -> None:
        self.code.movsx(self._register(match[1]), self._register(match[3]), _EXTENSIONS[match[2]])

    def swap(self, match: Match) -> None:
        if match[1] != match[4]:
            raise _Unclear("the bytes of a register can only be swapped in place")
        method = {"le": self.code.to_le, "be": self.code.to_be, "bswap": self.code.bswap}[match[2]]
        method(self._register(match[1]), int(match[3]))

    def cast(self, match: Match) -> None:
        spaces = self._number(match[3]), self._number(match[4])
        self.code.addr_space_cast(self._register(match[1]), self._register(match[2]), *spaces)

    def per_cpu(self, match: Match) -> None:
        dst, src = self._register(match[1]), self._register(match[2])
        self.code.append(Instruction(op.MOVE, dst.number, src.number, op.PER_CPU))

    def load(self, match: Match) -> None:
        self.code.load(self._register(match[1]), self._memory(match[2], match[3], match[4], match[5]))

    def load_packet(self, match: Match) -> None:
        index = self._register(match[2]) if match[2] else None
        self.code.load_packet(WIDTHS[match[1]], self._number(match[3]) if match[3] else 0, index)

    def store(self, match: Match) -> None:
        self.code.store(self._memory(match[1], match[2], match[3], match[4]), self._operand(match[5]))

    def atomic(self, match: Match) -> None:
        place = self._memory(match[1], match[2], match[3], match[4])
        self.code.atomic(_ATOMICS[match[5]], place, self._register(match[6]))

    def fetch(self, match: Match) -> None:
        if match[1] != match[7]:
            raise _Unclear("what was there before goes into the source register")
        operation = c.BPF_XCHG if match[2] == "xchg" else _FETCHES[match[2].removeprefix("fetch_")]
        place = self._memory(match[3], match[4], match[5], match[6])
        self.code.atomic(operation, place, self._register(match[7]))

    def exchange(self, match: Match) -> None:
        if match[1] != match[6]:
            raise _Unclear("what was there before goes into the source register")
        place = self._memory("u64" if match[2] == "_64" else "u32", match[3], match[4], match[5])
        self.code.xchg(place, self._register(match[6]))

    def compare_and_exchange(self, match: Match) -> None:
        width = match[2] or ("u64" if match[1] == "_64" else "u32")
        self.code.cmpxchg(self._memory(width, match[3], match[4], match[5]), self._register(match[6]))

    def load_acquire(self, match: Match) -> None:
        self.code.load_acquire(self._register(match[1]), self._memory(match[2], match[3], match[4], match[5]))

    def store_release(self, match: Match) -> None:
        self.code.store_release(self._memory(match[1], match[2], match[3], match[4]), self._register(match[5]))

    def load_constant(self, match: Match) -> None:
        self.code.load_imm64(self._register(match[1]), self._number(match[2]))

    def load_pseudo(self, match: Match) -> None:
        instruction = Instruction(LDIMM64, self._register(match[1]).number, self._number(match[2]))
        instruction.imm64 = self._number(match[3])
        self.code.append(instruction)

    def load_map(self, match: Match) -> None:
        dst = self._register(match[1])
        if match[2].startswith("id:"):
            raise _Unclear(
                "a map's id only stands in what the kernel has loaded; programs name their maps, or map[fd:N]"
            )
        source: str | int = int(match[2][3:]) if match[2].startswith("fd:") else match[2]
        if match[3] is None:
            self.code.load_map(dst, source)
        else:
            self.code.load_map_value(dst, source, self._number(match[3]))

    def load_address(self, match: Match) -> None:
        dst = self._register(match[1])
        if match[2] == "ksym":
            self.code.load_symbol(dst, match[3])
        elif match[3][0] in "+-":
            self.code.append(Instruction(LDIMM64, dst.number, c.BPF_PSEUDO_FUNC, 0, self._number(match[3])))
        else:
            self.code.load_function(dst, match[3])

    def arithmetic(self, match: Match) -> None:
        dst, sign, operand = self._register(match[1]), match[2], self._operand(match[3])
        if sign == "=" and isinstance(operand, int) and self._is_wide(dst, operand):
            self.code.load_imm64(dst, operand)
        elif sign in _SIGNED_ALU:
            self.code.alu(_SIGNED_ALU[sign], dst, operand, 1)
        else:
            self.code.alu(_ALU[sign], dst, operand)

    def _is_wide(self, dst: Register, value: int) -> bool:
        """Whether a number has to be loaded with the instruction of two slots, because it says so or does not fit."""
        return self._opcode == LDIMM64 or (dst.bits == 64 and not -0x80000000 <= value <= 0x7FFFFFFF)


_FORMS: list[tuple[re.Pattern[str], Callable[[_Parser, Match], None]]] = [
    (re.compile(pattern), method)
    for pattern, method in [
        (rf"{_REG} = -{_REG}", _Parser.negate),
        (rf"{_REG} (=|[-+*/|&%^]=|<<=|>>=|s>>=|s/=|s%=) {_WORD}", _Parser.arithmetic),
        (rf"if {_REG} (\S+) {_WORD} goto {_TARGET}", _Parser.jump_if),
        (rf"{_REG} = {_PLACE}", _Parser.load),
        (rf"{_PLACE} = {_WORD}", _Parser.store),
        (rf"callx? {_REG}", _Parser.call_register),
        (r"call pc([+-]\w+)(?:#\S+)?", _Parser.call_relative),
        (r"call kernel-function#(-?\d+)", _Parser.call_kernel_function),
        (r"call (?:\w+#)?(-?\d+|-?0x[0-9a-f]+)", _Parser.call_number),
        (r"call ([A-Za-z_]\w*)", _Parser.call_name),
        (r"exit", _Parser.exit),
        (rf"(goto|gotol|may_goto) {_TARGET}", _Parser.jump),
        (rf"gotox {_REG}", _Parser.jump_indirect),
        (rf"{_REG} = \((s8|s16|s32)\) ?{_REG}", _Parser.extend),
        (rf"{_REG} = (le|be|bswap)(-?\d+) {_REG}", _Parser.swap),
        (rf"{_REG} = addr_space_cast\({_REG}, (\w+), (\w+)\)", _Parser.cast),
        (rf"{_REG} = &\(void __percpu \*\)\({_REG}\)", _Parser.per_cpu),
        (rf"r0 = \*\(([us](?:8|16|32|64)) \*\)skb\[(?:(r\d+)(?: \+ (?=.))?)?{_WORD}?\]", _Parser.load_packet),
        (rf"{_REG} = {_WORD} ll", _Parser.load_constant),
        (rf"ld_pseudo\s+{_REG}, (\w+), (\w+)", _Parser.load_pseudo),
        (rf"{_REG} = map\[([\w.]+|(?:fd|id):\d+)\](?:\[0\]\+(\w+))?", _Parser.load_map),
        (rf"{_REG} = (subprog|ksym)\[([+-]?\w+)\]", _Parser.load_address),
        (rf"lock {_PLACE} (\+=|\|=|&=|\^=) {_REG}", _Parser.atomic),
        (rf"{_REG} = atomic(?:64)?_(fetch_(?:add|or|and|xor)|xchg)\({_MEM}, {_REG}\)", _Parser.fetch),
        (rf"{_REG} = xchg(_64|32_32)\({_REG}(?: ([+-]) (\w+))?, {_REG}\)", _Parser.exchange),
        (rf"[rw]0 = (?:atomic_|atomic64_)?cmpxchg(_64|32_32)?\({_MEM}, [rw]0, {_REG}\)", _Parser.compare_and_exchange),
        (rf"{_REG} = load_acquire\({_MEM}\)", _Parser.load_acquire),
        (rf"store_release\({_MEM}, {_REG}\)", _Parser.store_release),
        (r"nospec", _Parser.nospec),
    ]
]
"""The forms of instructions, the commonest first."""
