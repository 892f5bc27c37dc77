"""From a policy to the classic filter that does the same.

    arch? -> x32? -> number? -> conditions of the first rule, of the second ... -> ret

Rules of this module:

* The architecture comes first, then the number, found by halving the table: 300 rules take 9 comparisons.
* A 64-bit argument is compared by its halves, the upper one first; where each lies depends on the byte order.
* Jumps of classic BPF reach 255 instructions. One that leads further goes over a ``ja`` behind its comparison.
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf.asm.classic import Filter, Instruction, check_seccomp
from pybpf.asm.classic.instruction import JUMP, LOAD_WORD, RETURN
from pybpf.seccomp.numbers import X32_BIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.seccomp.architectures import Architecture
    from pybpf.seccomp.rules import Action, Condition, Policy, Rule

_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data."""
_REACH = 255
_JEQ, _JGT, _JGE, _AND = (c.BPF_JMP | c.BPF_JEQ, c.BPF_JMP | c.BPF_JGT, c.BPF_JMP | c.BPF_JGE, c.BPF_ALU | c.BPF_AND)
_ALL_BITS = 0xFFFFFFFF


class _Line:
    """An instruction whose targets are labels. A plain one has none, a comparison both, ``ja`` the first."""

    __slots__ = ("code", "false", "k", "labels", "true")

    def __init__(self, code: int, k: int, true: str = "", false: str = "") -> None:
        self.code = code
        self.k = k
        self.true = true
        self.false = false
        self.labels: list[str] = []


class _Writer:
    """Writes lines, and labels before them."""

    def __init__(self) -> None:
        self.lines: list[_Line] = []
        self._pending: list[str] = []
        self._count = 0

    def label(self, name: str) -> None:
        self._pending.append(name)

    def fresh(self) -> str:
        self._count += 1
        return f".{self._count}"

    def write(self, code: int, k: int, true: str = "", false: str = "") -> None:
        line = _Line(code, k, true, false)
        line.labels, self._pending = self._pending, []
        self.lines.append(line)


def compile_policy(policy: Policy) -> Filter:
    """The filter of a policy.

    Raises:
        ObjectError: it would be longer than the kernel takes.
    """
    writer = _Writer()
    writer.write(LOAD_WORD, _ARCHITECTURE)
    by_audit: dict[int, list[Architecture]] = {}
    for one in policy.architectures:
        by_audit.setdefault(one.audit, []).append(one)
    foreign = _label_of(policy.foreign)
    for audit, architectures in by_audit.items():
        following = writer.fresh()
        mine = writer.fresh()
        writer.write(_JEQ, audit, mine, following)
        writer.label(mine)
        writer.write(LOAD_WORD, _NUMBER)
        names = {one.name: one for one in architectures}
        if "x32" in names or "x86_64" in names:
            _write_x86(writer, policy, names, foreign)
        else:
            _write_architecture(writer, policy, architectures[0])
        writer.label(following)
    writer.write(JUMP, 0, foreign)
    for action in dict.fromkeys([policy.default, policy.foreign, *(rule.action for rule in policy.rules)]):
        writer.label(_label_of(action))
        writer.write(RETURN, action.value)
    program = Filter(_resolve(writer.lines))
    check_seccomp(program.instructions)
    return program


def _label_of(action: Action) -> str:
    return f"ret {action.value:#x}"


def _write_x86(writer: _Writer, policy: Policy, names: dict[str, Architecture], foreign: str) -> None:
    """x86-64 and x32 are one architecture; a bit of the number tells which. -1, which a tracer sets, is neither's."""
    x32, x86_64, real = writer.fresh(), writer.fresh(), writer.fresh()
    writer.write(_JGE, X32_BIT, x32, x86_64)
    writer.label(x32)
    writer.write(_JEQ, _ALL_BITS, _label_of(policy.default), real)
    writer.label(real)
    if "x32" in names:
        _write_architecture(writer, policy, names["x32"])
    else:
        writer.write(JUMP, 0, foreign)
    writer.label(x86_64)
    if "x86_64" in names:
        _write_architecture(writer, policy, names["x86_64"])
    else:
        writer.write(JUMP, 0, foreign)


def _write_architecture(writer: _Writer, policy: Policy, architecture: Architecture) -> None:
    """What the rules say of the calls of one architecture. The number is in A."""
    rules: dict[int, list[Rule]] = {}
    for rule in policy.rules:
        for number in dict.fromkeys(rule.numbers(architecture)):
            so_far = rules.setdefault(number, [])
            if not so_far or so_far[-1].conditions:  # nothing comes after a rule without conditions
                so_far.append(rule)
    default = _label_of(policy.default)
    # From each bound on, up to the next one, calls have the same rules.
    bounds: list[tuple[int, tuple[Rule, ...]]] = [(0, ())]
    for number in sorted(rules):
        if bounds[-1][0] == number:
            bounds.pop()
        for place, these in ((number, tuple(rules[number])), (number + 1, ())):
            if not bounds or bounds[-1][1] != these:
                bounds.append((place, these))
    blocks: dict[tuple[Rule, ...], str] = {}
    _write_search(writer, bounds, blocks, default)
    for these, label in blocks.items():
        writer.label(label)
        _write_rules(writer, these, architecture.byte_order, default)


def _write_search(
    writer: _Writer, bounds: list[tuple[int, tuple[Rule, ...]]], blocks: dict[tuple[Rule, ...], str], default: str
) -> None:
    """Find the range that A lies in, by halving."""
    if len(bounds) == 1:
        writer.write(JUMP, 0, _label_for(writer, bounds[0][1], blocks, default))
        return
    middle = len(bounds) // 2
    lower, upper = bounds[:middle], bounds[middle:]
    ends = [_label_for(writer, half[0][1], blocks, default) if len(half) == 1 else "" for half in (upper, lower)]
    true, false = (end or writer.fresh() for end in ends)
    writer.write(_JGE, upper[0][0], true, false)
    for half, end, label in ((lower, ends[1], false), (upper, ends[0], true)):
        if not end:
            writer.label(label)
            _write_search(writer, half, blocks, default)


def _label_for(writer: _Writer, rules: tuple[Rule, ...], blocks: dict[tuple[Rule, ...], str], default: str) -> str:
    if not rules:
        return default
    if len(rules) == 1 and not rules[0].conditions:
        return _label_of(rules[0].action)
    return blocks.setdefault(rules, writer.fresh())


def _write_rules(writer: _Writer, rules: tuple[Rule, ...], byte_order: str, default: str) -> None:
    """One rule after the other, until one fits."""
    for rule in rules:
        following = writer.fresh()
        for condition in rule.conditions:
            _write_condition(writer, condition, byte_order, following)
        writer.write(JUMP, 0, _label_of(rule.action))
        writer.label(following)
    writer.write(JUMP, 0, default)


def _write_condition(writer: _Writer, condition: Condition, byte_order: str, failed: str) -> None:
    """Go on when the condition holds, else to `failed`."""
    operator = condition.operator
    passed = writer.fresh()
    true, false = passed, failed
    if operator in ("!=", "<", "<="):  # the opposite is tested
        operator = {"!=": "==", "<": ">=", "<=": ">"}[operator]  # type: ignore[assignment]
        true, false = failed, passed
    lower = writer.fresh()
    high, low = condition.value >> 32, condition.value & _ALL_BITS
    _write_half(writer, condition, byte_order, upper=True)
    if operator == "==":
        writer.write(_JEQ, high, lower, false)
    else:
        equal = writer.fresh()
        writer.write(_JGT, high, true, equal)
        writer.label(equal)
        writer.write(_JEQ, high, lower, false)
    writer.label(lower)
    _write_half(writer, condition, byte_order, upper=False)
    writer.write({"==": _JEQ, ">": _JGT, ">=": _JGE}[operator], low, true, false)
    writer.label(passed)


def _write_half(writer: _Writer, condition: Condition, byte_order: str, *, upper: bool) -> None:
    """Load one half of an argument, masked."""
    mask = condition.mask >> 32 if upper else condition.mask & _ALL_BITS
    offset = _ARGUMENTS + 8 * condition.index + (4 if upper == (byte_order == "little") else 0)
    writer.write(LOAD_WORD, offset)
    if mask != _ALL_BITS:
        writer.write(_AND, mask)


def _resolve(lines: list[_Line]) -> list[Instruction]:
    """Labels to distances. Comparisons that lead too far get a ``ja`` behind them for each way that does."""
    lines = _without_detours(lines)
    while True:
        places = {label: index for index, line in enumerate(lines) for label in line.labels}
        result: list[_Line] = []
        grown = False
        for index, line in enumerate(lines):
            result.append(line)
            if not line.false:
                continue
            for way in ("true", "false"):
                target = getattr(line, way)
                if places[target] - index - 1 > _REACH:
                    name = f"{target}+{index}{way}{len(lines)}"
                    detour = _Line(JUMP, 0, target)
                    detour.labels = [name]
                    setattr(line, way, name)
                    result.append(detour)
                    grown = True
        lines = result
        if not grown:
            return [_instruction(line, index, places) for index, line in enumerate(lines)]


def _without_detours(lines: list[_Line]) -> list[_Line]:
    """Let jumps to a ``ja`` lead to where it leads, and leave out every ``ja`` that nothing reaches any more."""
    places = {label: index for index, line in enumerate(lines) for label in line.labels}

    def end(label: str) -> str:
        while lines[places[label]].code == JUMP:
            label = lines[places[label]].true
        return label

    for line in lines:
        if line.true:
            line.true = end(line.true)
        if line.false:
            line.false = end(line.false)
    reached, pending = set(), [0]
    while pending:
        index = pending.pop()
        if index in reached or index >= len(lines):
            continue
        reached.add(index)
        line = lines[index]
        pending += [places[label] for label in (line.true, line.false) if label]
        if not line.true and line.code != RETURN:
            pending.append(index + 1)
    return [line for index, line in enumerate(lines) if index in reached]


def _instruction(line: _Line, index: int, places: dict[str, int]) -> Instruction:
    if line.false:
        return Instruction(line.code, places[line.true] - index - 1, places[line.false] - index - 1, line.k)
    if line.true:
        return Instruction(line.code, k=places[line.true] - index - 1)
    return Instruction(line.code, k=line.k)
