"""Random C: the same types as two kernels might have them, and programs that relocate everything in one of them.

A world is a list of families: a struct, an enum, a typedef of one name, in a local and in a target version. The target
version has members added, dropped, moved, wrapped in anonymous structs, made wider, renamed or of another kind.

`fragments()` writes a program against a real kernel: parts of its structs, in another order and with other sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from pybpf.btf.kinds import KIND_STRUCT, Array, Composite, Enum, Int, Member, Ptr, Struct, member_bits
from pybpf.btf.reader import BTF

SCALARS = ("u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "bool", "char", "long", "unsigned long")
UNSIGNED = {"u8": 8, "u16": 16, "u32": 32, "u64": 64}
SIGNED = {"s8": 8, "s16": 16, "s32": 32, "s64": 64}


class Field:
    """A member: `form` is scalar, enum, pointer, function, array, matrix, flexible, bitfield, struct, or anonymous."""

    def __init__(
        self, form: str, name: str = "", base: str = "", count: int = 0, fields: list[Field] | None = None
    ) -> None:
        self.form = form
        self.name = name
        self.base = base
        self.count = count
        self.fields = fields or []

    def declare(self) -> str:
        match self.form:
            case "scalar" | "enum":
                return f"{self.base} {self.name};"
            case "pointer":
                return f"{self.base} *{self.name};"
            case "function":
                return f"{self.base} (*{self.name})({', '.join(['int'] * self.count) or 'void'});"
            case "array":
                return f"{self.base} {self.name}[{self.count}];"
            case "matrix":
                return f"{self.base} {self.name}[{self.count}][3];"
            case "flexible":
                return f"{self.base} {self.name}[];"
            case "bitfield":
                return f"{self.base} {self.name} : {self.count};"
            case _:
                return f"{self.base} {{ {' '.join(field.declare() for field in self.fields)} }} {self.name};"

    def uses(self, path: str) -> list[str]:
        """Expressions that relocate this member, given what leads to it."""
        here = f"{path}{self.name}"
        asks = [f"put(field_{ask}({here}));" for ask in ("offset", "size", "exists")]
        numbers = [f"put(field_{ask}({here}));" for ask in ("signed", "lshift", "rshift")]
        match self.form:
            case "scalar" | "enum":
                return [*asks, *numbers, f"put({here});", f"put(&{here});"]
            case "bitfield":
                return [*asks, *numbers]
            case "pointer":
                return [*asks, f"put({here});"]
            case "function":
                return asks
            case "array":
                elements = sorted({0, 1, self.count - 1} & set(range(self.count)))
                return [*asks, *(f"put({here}[{i}]);" for i in elements), *(f"put(&{here}[{i}]);" for i in elements)]
            case "matrix":
                return [*asks, f"put({here}[{self.count - 1}][2]);", f"put(&{here}[0]);"]
            case "flexible":
                return [f"put({here}[5]);", f"put(&{here}[1]);", f"put(field_exists({here}));"]
            case "struct":
                inner = [use for field in self.fields for use in field.uses(f"{here}.")]
                return [*asks, *inner]
            case _:
                return [use for field in self.fields for use in field.uses(path)]


def fields(random: Random, depth: int, names: list[str], enums: list[str]) -> list[Field]:
    """Some members with names taken from `names`."""
    result = []
    for _ in range(random.randint(1, 5)):
        name = names.pop()
        form = random.choice(
            ["scalar"] * 4
            + ["bitfield"] * 4
            + ["enum", "pointer", "pointer", "function", "array", "array", "matrix"]
            + ["struct", "anonymous", "anonymous"] * (depth > 0)
        )
        base = random.choice(SCALARS)
        count = random.randint(1, 4)
        match form:
            case "enum":
                base = random.choice(enums)
            case "pointer":
                base = random.choice(["void", "char", "struct elsewhere", "u32"])
            case "function":
                base = random.choice(["void", "int"])
            case "bitfield":
                base, width = random.choice([*UNSIGNED.items(), *SIGNED.items()])
                count = random.randint(1, width)
        if form in ("struct", "anonymous"):
            inner = fields(random, depth - 1, names, enums)
            shown = name if form == "struct" else ""
            result.append(Field(form, shown, random.choice(["struct", "union"]), fields=inner))
        else:
            result.append(Field(form, name, base, count))
    return result


def mutated(random: Random, old: list[Field], names: list[str], enums: list[str]) -> list[Field]:
    """The same members as another kernel might have them."""
    result = []
    for field in old:
        new = Field(field.form, field.name, field.base, field.count, field.fields)
        chance = random.random()
        if new.fields:
            new.fields = mutated(random, new.fields, names, enums)
            if chance < 0.2:
                new.base = "union" if new.base == "struct" else "struct"
        elif chance < 0.08:
            form, base = random.choice([("scalar", "u32"), ("pointer", "void"), ("array", "u8")])
            new = Field(form, new.name, base, 2)
        elif chance < 0.16:
            continue
        elif chance < 0.45:
            for table in (UNSIGNED, SIGNED):
                if new.base in table:
                    new.base = random.choice(list(table if random.random() < 0.8 else {**UNSIGNED, **SIGNED}))
                    new.count = (
                        min(new.count, {**UNSIGNED, **SIGNED}[new.base]) if new.form == "bitfield" else new.count
                    )
                    break
        elif chance < 0.6:
            new.count = max(1, new.count + random.choice([-1, 1]))
            if new.form == "bitfield":
                new.count = min(new.count, {**UNSIGNED, **SIGNED}[new.base])
        result.append(new)
    if random.random() < 0.6:
        random.shuffle(result)
    if random.random() < 0.5:
        result.insert(random.randrange(len(result) + 1), Field("scalar", names.pop(), random.choice(SCALARS)))
    if len(result) > 1 and random.random() < 0.4:
        at = random.randrange(len(result) - 1)
        result[at : at + 2] = [Field("anonymous", "", random.choice(["struct", "union"]), fields=result[at : at + 2])]
    return result or [Field("scalar", names.pop(), "int")]


class World:
    """C of both sides: `local` is a program, `target` the other kernel's types."""

    def __init__(self, seed: int, families: int = 20) -> None:
        random = Random(seed)
        self.random = random
        header = ['#include "core.h"', "struct s0;"]
        local, target, programs = [*header], [*header], []
        enums = [f"enum e{number}" for number in range(4)]
        for number, enum in enumerate(enums):
            programs.append(self._add_enum(number, enum, local, target))
        for number in range(families):
            programs.append(self._add_struct(number, enums, local, target))
        for number in range(families // 2):
            programs.append(self._add_typedef(number, local, target))
        self.local = "\n".join([*local, *programs, 'char _license[] SEC("license") = "GPL";', ""])
        self.target = "\n".join([*target, ""])

    def _flavor(self) -> str:
        return self.random.choice(["", "", "___mine", "___v2"])

    def _add_enum(self, number: int, enum: str, local: list[str], target: list[str]) -> str:
        random = self.random
        flavor = self._flavor()
        values = {f"E{number}_{index}": random.choice([index, -index, index << 20]) for index in range(5)}
        if random.random() < 0.4:
            values[f"E{number}_wide"] = random.getrandbits(60) | 1 << 40
        if flavor:
            local.append(f"{enum} {{ L{number} }};")  # for members, which have no flavor
        local.append(f"{enum}{flavor} {{ {enumerators(values, flavor)} }};")
        names = [name for name in values if random.random() < 0.8] or ["ANOTHER"]
        wide = random.random() < 0.4
        theirs = {name: random.getrandbits(62 if wide else 31) for name in names}
        target.append(f"{enum} {{ {enumerators(theirs)} }} v_e{number};")
        name = f"{enum}{flavor}"
        uses = [f"value_all({name}, {value}{flavor});" for value in values]
        return program(f"enum{number}", "", [*uses, f"type_all({name});"])

    def _add_struct(self, number: int, enums: list[str], local: list[str], target: list[str]) -> str:
        random = self.random
        names = [f"m{number}_{index}" for index in range(400)]
        mine = fields(random, 2, names, enums)
        if random.random() < 0.3:
            mine.append(Field("flexible", names.pop(), random.choice(SCALARS)))
        theirs = [field for field in mine if field.form != "flexible"]
        if random.random() < 0.7:
            theirs = mutated(random, theirs, names, enums)
        else:
            theirs = [Field("scalar", names.pop(), "u64"), *theirs[::-1]]
        if mine[-1].form == "flexible":
            theirs.append(Field(random.choice(["flexible", "array"]), mine[-1].name, mine[-1].base, 6))
        tag = f"struct s{number}{self._flavor()}"
        local.append(f"{tag} {{ {' '.join(field.declare() for field in mine)} }} CORE;")
        if random.random() < 0.9:
            target.append(f"struct s{number} {{ {' '.join(field.declare() for field in theirs)} }} v_s{number};")
        uses = [use for field in mine for use in field.uses("x->")]
        return program(f"struct{number}", f"{tag} *x", [*uses, f"type_all({tag});"])

    def _add_typedef(self, number: int, local: list[str], target: list[str]) -> str:
        random = self.random
        shapes = [*SCALARS[:10], "void *", "char **", "struct s0 *", "struct { int a; }", "enum e0", "union { int a; }"]
        for side, variable in ((local, ""), (target, f"t{number} v_t{number};")):
            shape = random.choice(shapes)
            if random.random() < 0.3:
                parameters = ", ".join(random.choices(["int", "long", "void *", "struct s0 *"], k=random.randint(1, 2)))
                side.append(f"typedef {random.choice(['int', 'void'])} (*t{number})({parameters}); {variable}")
            elif random.random() < 0.2:
                side.append(f"typedef {random.choice(SCALARS)} t{number}[{random.randint(1, 3)}]; {variable}")
            else:
                side.append(f"typedef {shape} t{number}; {variable}")
        return program(f"typedef{number}", "", [f"type_all(t{number});"])


def enumerators(values: dict[str, int], flavor: str = "") -> str:
    return ", ".join(f"{name}{flavor} = {value}LL" for name, value in values.items())


def program(name: str, parameter: str, uses: list[str]) -> str:
    body = "\n\t".join(uses)
    return f'SEC("core/{name}")\nint {name}({parameter or "void *ctx"})\n{{\n\t{body}\n\treturn 0;\n}}'


def fragments(kernel: BTF, seed: int, count: int) -> str:
    """A program that relocates some members of `count` structs of a kernel."""
    random = Random(seed)
    parts = ['#include "core.h"']
    seen: set[str] = set()
    while len(seen) < count:
        type_id = random.randrange(1, len(kernel))
        name = kernel.name_of(type_id) if kernel.kind_of(type_id) == KIND_STRUCT else ""
        if not name.isidentifier() or name in seen or len(kernel.own_ids(name, KIND_STRUCT)) > 1:
            continue
        struct = kernel.type(type_id)
        assert isinstance(struct, Struct)
        members = [(key, member) for key, member in named_members(kernel, struct) if key.isidentifier()]
        if not members or struct.size > 0x7FFF:  # loads reach no further
            continue
        seen.add(name)
        mine = [fragment(kernel, random, key, member) for key, member in random.sample(members, min(6, len(members)))]
        parts.append(f"struct {name} {{ {' '.join(field.declare() for field in mine)} }} CORE;")
        uses = [use for field in mine for use in field.uses("x->")]
        parts.append(program(f"f{len(seen)}", f"struct {name} *x", [*uses, f"type_all(struct {name});"]))
    return "\n".join([*parts, ""])


def named_members(kernel: BTF, composite: Composite) -> Iterator[tuple[str, Member]]:
    """The members by name, those of anonymous members included."""
    for member in composite.members:
        inner = kernel.resolve(member.type_id)
        if member.name:
            yield member.name, member
        elif isinstance(inner, Composite):
            yield from named_members(kernel, inner)


def fragment(kernel: BTF, random: Random, name: str, member: Member) -> Field:
    """A member of the kernel as a program might declare it."""
    target = kernel.resolve(member.type_id)
    _, bits = member_bits(kernel, member)
    other = random.choice(SCALARS[:8])
    if isinstance(target, Int):
        same = next(
            (key for key, width in (SIGNED if target.is_signed else UNSIGNED).items() if width == target.size * 8),
            other,
        )
        base = same if random.random() < 0.7 else other
        return Field("bitfield", name, "u8", min(bits, 8)) if bits else Field("scalar", name, base)
    if isinstance(target, Enum):
        return Field("enum", name, f"enum {{ V_{name}_{random.getrandbits(30)} }}")
    if isinstance(target, Ptr):
        return Field("pointer", name, "void")
    if isinstance(target, Array):
        return Field("array", name, other, max(1, min(target.nelems, 4)))
    if isinstance(target, Composite):
        return Field("struct", name, "struct", fields=[Field("scalar", "not_there", "u64")])
    return Field("scalar", name, "u64")
