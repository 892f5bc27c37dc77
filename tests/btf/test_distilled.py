"""Distilled BTF: a module built for one kernel, used beside another."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pybpf.btf import distilled
from pybpf.btf.kinds import KIND_ENUM, KIND_ENUM64, KIND_STRUCT, KIND_TYPEDEF, Struct, kind_name
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BTFError

ORDERS = ("little", "big")


def kernel(
    order: str = "little",
    *,
    before: int = 0,
    task_size: int = 128,
    pair_size: int = 8,
    enum64: bool = False,
    twice: bool = False,
    without: str = "",
) -> BTF:
    """The types of a kernel. `before` types that no module wants shift all ids."""
    builder = BTFBuilder(order)
    for number in range(before):
        builder.add_struct(f"unrelated_{number}", number, [])
    ints = {}
    for name, size, encoding in (("int", 4, 1), ("char", 1, 2), ("unsigned long", 8, 0)):
        if name != without:
            ints[name] = builder.add_int(name, size, size * 8, encoding)
    some = next(iter(ints.values()))
    builder.add_float("double", 8)
    task = builder.add_struct("task_struct", task_size, [("pid", some, 0), ("flags", some, 64)])
    builder.add_struct("pair", pair_size, [("a", some, 0)])
    if twice:
        builder.add_struct("pair", 12, [("a", some, 0)])
        builder.add_struct("task_struct", task_size, [("other", some, 0)])
    builder.add_union("either", 8, [("a", some, 0)])
    values = [("LOW", 0), ("HIGH", 1)]
    if enum64:
        builder.add_enum64("level", 4, False, values)
    else:
        builder.add_enum("level", 4, False, values)
    builder.add_fwd("opaque")
    builder.add_typedef("task_t", task)
    builder.add_struct("", 4, [("anonymous", some, 0)])
    builder.add_array(task, some, 5)
    return BTF.from_bytes(builder.to_bytes(), name="kernel")


def module(base: BTF) -> BTF:
    """A module that uses something of every kind."""
    ids = {type.name: type.id for type in base.types() if type.name}
    anonymous, array = len(base) - 2, len(base) - 1
    builder = BTFBuilder(base.byte_order, base)
    pointers = [builder.add_ptr(ids[name]) for name in ("task_t", "opaque", "either", "level", "double", "char")]
    members = [(f"member_{index}", id, 64 * index) for index, id in enumerate(pointers)]
    members += [("pair", ids["pair"], 64 * len(pointers)), ("nameless", anonymous, 64 * len(pointers) + 64)]
    builder.add_struct("device", 8 * len(pointers) + 16, members)
    proto = builder.add_func_proto(ids["int"], [("tasks", builder.add_ptr(array)), ("size", ids["unsigned long"])])
    builder.add_func("probe_device", proto, 0)
    builder.add_var("devices", ids["int"])
    builder.add_datasec(".data", 4, [(len(builder) - 1, 0, 4)])
    builder.add_decl_tag("a tag", proto - 1)
    builder.add_enum("state", 4, True, [("OFF", -1), ("int", 1)])  # an enumerator with the name of a type
    return BTF.from_bytes(builder.to_bytes(), base=base, name="module")


def parts(split: BTF) -> tuple[BTF, BTF]:
    base_data, data = distilled.distill(split)
    base = BTF.from_bytes(base_data, name="module .BTF.base")
    return base, BTF.from_bytes(data, base=base, name="module")


def told(btf: BTF) -> list[str]:
    """Every own type in words, with what it refers to by name; ids of nameless types do not matter."""
    words, lines = btf.words(), []
    for type, position in zip(btf.types(), btf.positions(), strict=False):
        names = [btf.string(words[place]) for place in distilled.name_places(words, position)]
        refers = [btf.name_of(words[place]) for place in distilled.id_places(words, position)]
        lines.append(f"{type.kind} {names} {refers} {getattr(type, 'size', '')}")
    return lines


@pytest.mark.parametrize("order", ORDERS)
def test_what_a_distilled_base_holds(order: str) -> None:
    base, split = parts(module(kernel(order)))
    assert [(kind_name(type.kind), type.name) for type in base.types()] == [
        ("int", "int"),
        ("int", "char"),
        ("int", "unsigned long"),
        ("float", "double"),
        ("struct", "task_struct"),
        ("struct", "pair"),
        ("union", "either"),
        ("enum", "level"),
        ("fwd", "opaque"),
    ]
    task = base.find("task_struct", KIND_STRUCT)
    assert isinstance(task, Struct)
    assert (task.size, task.members) == (128, ())
    # what has no place there follows the module's own types
    added = [split.type(id) for id in range(len(split) - 3, len(split))]
    assert [(kind_name(type.kind), type.name) for type in added] == [
        ("typedef", "task_t"),
        ("struct", ""),
        ("array", ""),
    ]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("before", [0, 7])
@pytest.mark.parametrize("enum64", [False, True])
def test_a_module_beside_another_kernel(order: str, before: int, enum64: bool) -> None:
    built_for, runs_on = kernel(order), kernel(order, before=before, task_size=192, enum64=enum64)
    original = module(built_for)
    _, split = parts(original)
    moved = distilled.relocate(split, runs_on)
    assert moved.base is runs_on
    assert moved.first_id == len(runs_on)
    assert told(moved) == told(split)
    assert told(moved)[: len(original) - len(built_for)] == told(original)
    device = moved.find("device", KIND_STRUCT)
    assert isinstance(device, Struct)
    assert moved.resolve(moved.resolve(device.members[0].type_id).type_id).size == 192  # of this kernel
    kinds = {KIND_ENUM64 if enum64 else KIND_ENUM}
    assert moved.resolve(moved.resolve(device.members[3].type_id).type_id).kind in kinds
    moved.check()
    assert BTF.from_bytes(moved.data, base=runs_on).find("task_t", KIND_TYPEDEF).name == "task_t"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"without": "char"}, "module needs int 'char' of 1 bytes, and the kernel has none like it"),
        ({"pair_size": 16}, "module needs struct 'pair' of 8 bytes, and the kernel has none like it"),
        ({"twice": True}, "module needs struct 'task_struct' of 128 bytes, and the kernel has 2 like it"),
    ],
)
def test_a_kernel_that_does_not_fit(other: dict[str, object], message: str) -> None:
    _, split = parts(module(kernel()))
    with pytest.raises(BTFError, match=message):
        distilled.relocate(split, kernel(**other))


def test_the_size_tells_two_of_one_name_apart() -> None:
    _, split = parts(module(kernel()))
    runs_on = kernel(twice=True, task_size=200)
    with pytest.raises(BTFError, match="task_struct"):  # neither has the size
        distilled.relocate(split, runs_on)


def test_a_forward_declaration_that_the_kernel_defines() -> None:
    base = BTFBuilder()
    opaque = base.add_fwd("opaque")
    split = BTFBuilder(base=(known := BTF.from_bytes(base.to_bytes())))
    split.add_ptr(opaque)
    _, moved = parts(BTF.from_bytes(split.to_bytes(), base=known))
    for add, fits in ((BTFBuilder.add_struct, True), (BTFBuilder.add_union, False)):
        defines = BTFBuilder()
        defines.add_struct("first", 4, [])
        id = add(defines, "opaque", 4, [])
        runs_on = BTF.from_bytes(defines.to_bytes(), name="kernel")
        if fits:
            assert distilled.relocate(moved, runs_on).type(len(runs_on)).type_id == id
        else:
            with pytest.raises(BTFError, match="module needs fwd 'opaque', and the kernel has none like it"):
                distilled.relocate(moved, runs_on)


def test_what_is_no_distilled_base() -> None:
    base = kernel()
    with pytest.raises(BTFError, match="it is not split"):
        distilled.relocate(base, base)
    with pytest.raises(BTFError, match="it is not split"):
        distilled.distill(base)
    with pytest.raises(BTFError, match="typedef 'task_t' does not belong into a distilled base"):
        distilled.relocate(module(base), base)


# In a module's file


def elf_file(path: Path, sections: dict[str, bytes]) -> str:
    """A 64-bit ELF file with these sections and nothing else."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    contents = {**sections, ".shstrtab": names}
    body, headers, place = b"", bytes(64), 64
    for name, data in contents.items():
        at = names.index(b"\0" + name.encode() + b"\0") + 1
        headers += struct.pack("<IIQQQQIIQQ", at, 3 if name == ".shstrtab" else 1, 0, 0, place, len(data), 0, 0, 1, 0)
        body += data
        place += len(data)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 1, 247, 1, 0, 0, place, 0, 64, 0, 0, 64, len(contents) + 1, len(contents))
    path.write_bytes(header + body + headers)
    return str(path)


def test_the_file_of_a_module(tmp_path: Path) -> None:
    base, data = distilled.distill(module(kernel()))
    path = elf_file(tmp_path / "module.ko", {".BTF": data, ".BTF.base": base})
    alone = BTF.from_file(path)
    assert alone.base is not None
    assert bytes(alone.base.data) == base
    runs_on = kernel(before=3)
    beside = BTF.from_file(path, base=runs_on)
    assert beside.base is runs_on
    assert told(beside) == told(alone)
    with pytest.raises(BTFError, match=r"module.ko.*module needs int 'char'"):
        BTF.from_file(path, base=kernel(without="char"))
    broken = elf_file(tmp_path / "broken.ko", {".BTF": data, ".BTF.base": base[:30]})
    with pytest.raises(BTFError, match="broken.ko"):
        BTF.from_file(broken, base=runs_on)


@pytest.mark.kernel
def test_the_running_kernel() -> None:
    """What is distilled from types of this kernel finds them in it again."""
    from pybpf.btf.kernel import KernelBTFMissing, vmlinux

    try:
        base = vmlinux()
    except KernelBTFMissing as error:
        pytest.skip(str(error))
    task, file = (base.find(name, KIND_STRUCT) for name in ("task_struct", "file"))
    builder = BTFBuilder(base.byte_order, base)
    builder.add_struct("mine", 16, [("task", builder.add_ptr(task.id), 0), ("file", builder.add_ptr(file.id), 64)])
    split = BTF.from_bytes(builder.to_bytes(), base=base, name="module")
    small, moved = parts(split)
    assert len(small) == 3
    back = distilled.relocate(moved, base)
    assert told(back) == told(split)
    assert back.words()[2] == split.words()[2] == task.id
