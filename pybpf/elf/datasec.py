"""DATASEC: what BTF says about the variables of a section, corrected by the ELF file, and made fit for the kernel.

Rules of this module:

* The compiler leaves the size of a section and the offsets of its global variables at 0: the section header and the
  symbols have them. Offsets of static variables, and everything in statically linked objects, are right already.
* A hidden variable is static for everyone outside the object.
* The reader's BTF is never changed: `DatasecLayout` holds what is right, and `kernel_btf()` writes an edited copy whose
  type ids are the same.

Source: tools/lib/bpf/libbpf.c, btf_fixup_datasec(), bpf_object__collect_externs(), bpf_object__sanitize_btf().
"""

from __future__ import annotations

from struct import error as StructError  # noqa: N812 - a class
from struct import pack_into

from pybpf.btf.kinds import (
    INT_SIGNED,
    KIND_DATASEC,
    KIND_DECL_TAG,
    KIND_FUNC,
    KIND_INT,
    LINKAGE_GLOBAL,
    LINKAGE_STATIC,
    Array,
    Datasec,
    DatasecEntry,
    DeclTag,
    Func,
    FuncProto,
    Int,
    Var,
)
from pybpf.elf.container import STB_LOCAL, STT_OBJECT
from pybpf.elf.externs import KCONFIG, KSYMS, kconfig_size
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybpf.btf.reader import BTF
    from pybpf.btf.writer import BTFEditor
    from pybpf.elf.container import Container, Symbol
    from pybpf.spec import ObjectSpec

_KSYM_SIZE = 4
"""Bytes that each kernel symbol takes in the data section shown to the kernel, which has no use for them."""

_DUMMY_KSYM = "dummy_ksym"


class DatasecLayout:
    """The variables of one section.

    Attributes:
        btf: the object's type information.
        type_id: of the DATASEC.
        name: of the section.
        size: bytes.
        entries: (id of the VAR, offset, size), sorted by offset.
        hidden: ids of VARs that BTF calls global but whose symbol is hidden.
        has_global: whether any variable can be seen from outside: then the map can be mapped into memory.
    """

    __slots__ = ("btf", "entries", "grown", "has_global", "hidden", "name", "size", "type_id")

    def __init__(self, btf: BTF, type_id: int, name: str, size: int) -> None:
        self.btf = btf
        self.type_id = type_id
        self.name = name
        self.size = size
        self.entries: list[tuple[int, int, int]] = []
        self.hidden: set[int] = set()
        self.has_global = False
        self.grown: tuple[int, int, int] | None = None

    def enlarge(self, size: int) -> bool:
        """Let the last variable grow so that the section has `size` bytes; False if it is not an array that can.

        The new number of its elements is kept in `grown` as (id of the VAR, id of its ARRAY type, elements).
        """
        if not self.entries:
            return False
        var_id, offset, _ = self.entries[-1]
        var = self.btf.type(var_id)
        if not isinstance(var, Var):
            return False
        array = self.btf.resolve(var.type_id)
        if not isinstance(array, Array):
            return False
        element = self.btf.size_of(array.type_id)
        if element == 0 or (size - offset) % element:
            return False
        self.grown = (var_id, array.id, (size - offset) // element)
        self.entries[-1] = (var_id, offset, size - offset)
        self.size = size
        return True

    def facts(self) -> tuple[object, ...]:
        """Everything in it, as a tuple that is equal for equal layouts."""
        return (self.type_id, self.name, self.size, self.entries, sorted(self.hidden), self.has_global, self.grown)

    def __repr__(self) -> str:
        return f"<DatasecLayout {self.name!r} {self.size} bytes, {len(self.entries)} variables>"


def ids_of_kinds(btf: BTF, *kinds: int) -> list[int]:
    """The ids of an object's types of the given kinds, ascending, found without decoding any."""
    words = btf.words()
    first = btf.first_id
    return [
        id for id, position in enumerate(btf.positions()[:-1], first) if (words[position + 1] >> 24 & 0x7F) in kinds
    ]


def read_datasecs(btf: BTF) -> tuple[list[Datasec], list[DeclTag]]:
    """The data sections and the declaration tags of an object's BTF."""
    datasecs: list[Datasec] = []
    tags: list[DeclTag] = []
    for id in ids_of_kinds(btf, KIND_DATASEC, KIND_DECL_TAG):
        found = btf.type(id)
        if isinstance(found, Datasec):
            datasecs.append(found)
        elif isinstance(found, DeclTag):
            tags.append(found)
    return datasecs, tags


def read_layouts(container: Container, btf: BTF, datasecs: list[Datasec]) -> dict[int, DatasecLayout]:
    """What is right about each data section, by its type id. Those of externs are left out: they are in no ELF section.

    Raises:
        ObjectError: a section or a variable that BTF names is not in the file.
    """
    layouts: dict[int, DatasecLayout] = {}
    symbols: dict[str, Symbol] = {}
    for datasec in datasecs:
        if datasec.name in (KCONFIG, KSYMS):
            continue
        if not symbols:
            symbols = {one.name: one for one in container.symbols(STT_OBJECT) if one.bind != STB_LOCAL}
        layout = DatasecLayout(btf, datasec.id, datasec.name, datasec.size or _section_size(container, datasec.name))
        for entry in datasec.entries:
            layout.entries.append(_place(container, layout, entry, symbols, datasec.size == 0))
        layout.entries.sort(key=lambda entry: entry[1])
        layouts[datasec.id] = layout
    return layouts


def _section_size(container: Container, name: str) -> int:
    size = next((section.size for section in container.sections if section.name == name), 0)
    if size == 0:
        raise container.error(f"BTF describes the data section {name!r}, but there is no such section or it is empty")
    return size


def _place(
    container: Container, layout: DatasecLayout, entry: DatasecEntry, symbols: dict[str, Symbol], by_symbol: bool
) -> tuple[int, int, int]:
    var = layout.btf.type(entry.type_id)
    if not isinstance(var, Var):
        raise container.error(f"BTF: data section {layout.name!r} lists type id {entry.type_id}, which is no variable")
    if var.linkage == LINKAGE_STATIC:
        return var.id, entry.offset, entry.size
    symbol = symbols.get(var.name)
    if symbol is None:
        raise container.error(f"BTF describes the variable {var.name!r} in {layout.name!r}, but no symbol defines it")
    if symbol.is_hidden:
        layout.hidden.add(var.id)
    else:
        layout.has_global = True
    return var.id, symbol.value if by_symbol else entry.offset, entry.size


def kernel_btf(spec: ObjectSpec) -> bytes:
    """The object's BTF as the kernel takes it: ids unchanged, sections laid out, externs made ordinary.

    Raises:
        BTFError: the object has no BTF, or it is malformed.
    """
    btf = spec.btf
    if btf is None:
        raise BTFError(f"object {spec.name}: there is no BTF")
    hidden = {function.name for function in spec.subprograms if function.is_hidden}
    if not hidden and _needs_layouts_only(spec, btf):
        return _with_layouts(btf, spec.datasecs.values())
    from pybpf.btf.writer import BTFEditor

    editor = BTFEditor(btf)
    for layout in spec.datasecs.values():
        _write_layout(btf, editor, layout)
    for id in ids_of_kinds(btf, KIND_DATASEC):
        datasec = btf.type(id)
        if isinstance(datasec, Datasec) and datasec.name == KCONFIG:
            _write_kconfig(spec, editor, datasec)
        elif isinstance(datasec, Datasec) and datasec.name == KSYMS:
            _write_ksyms(btf, editor, datasec)
    if hidden:
        for id in ids_of_kinds(btf, KIND_FUNC):
            func = btf.type(id)
            if isinstance(func, Func) and func.linkage == LINKAGE_GLOBAL and func.name in hidden:
                editor.set_linkage(id, LINKAGE_STATIC)
    return editor.to_bytes()


def _needs_layouts_only(spec: ObjectSpec, btf: BTF) -> bool:
    """Whether only sizes and places in data sections are wrong. Most objects are such, and need no editor."""
    header = btf.header
    tiles = header.types == header.length and header.types_end == header.strings and header.strings_end == len(btf.data)
    return (
        tiles
        and not header.extended
        and not any(layout.hidden or layout.grown for layout in spec.datasecs.values())
        and sorted(spec.datasecs) == ids_of_kinds(btf, KIND_DATASEC)
    )


def _with_layouts(btf: BTF, layouts: Iterable[DatasecLayout]) -> bytes:
    """The BTF with other sizes and places in its data sections."""
    data = bytearray(btf.data)
    order = "<" if btf.byte_order == "little" else ">"
    for layout in layouts:
        at = btf.header.types + 4 * btf.positions()[layout.type_id - btf.first_id]
        try:
            pack_into(f"{order}I", data, at + 8, layout.size)
            for number, entry in enumerate(layout.entries):
                pack_into(f"{order}3I", data, at + 12 + 12 * number, *entry)
        except StructError:
            raise BTFError(f"data section {layout.name!r}: a size or place does not fit 32 bits") from None
    return bytes(data)


def _write_layout(btf: BTF, editor: BTFEditor, layout: DatasecLayout) -> None:
    for var_id in layout.hidden:
        editor.set_linkage(var_id, LINKAGE_STATIC)
    if layout.grown is not None:
        var_id, array_id, elements = layout.grown
        array = btf.type(array_id)
        assert isinstance(array, Array)
        editor.set_type(var_id, editor.add_array(array.type_id, array.index_type_id, elements))
    entries = [DatasecEntry(type_id, offset, size) for type_id, offset, size in layout.entries]
    editor.set_datasec(layout.type_id, layout.size, entries)


def _write_kconfig(spec: ObjectSpec, editor: BTFEditor, datasec: Datasec) -> None:
    """Put the settings where the map has them, as ordinary variables."""
    places = {extern.btf_id: extern for extern in spec.externs.values() if extern.section == KCONFIG}
    entries = []
    for entry in datasec.entries:
        extern = places.get(entry.type_id)
        if extern is not None:
            editor.set_linkage(entry.type_id, LINKAGE_GLOBAL)
            entries.append(DatasecEntry(entry.type_id, extern.offset, extern.size))
    entries.sort(key=lambda entry: entry.offset)
    editor.set_datasec(datasec.id, kconfig_size(spec.externs), entries)


def _write_ksyms(btf: BTF, editor: BTFEditor, datasec: Datasec) -> None:
    """Make kernel symbols variables of type int: the kernel's BTF check knows neither externs nor functions in data."""
    number = _int_id(btf, editor)
    dummy = 0
    entries = []
    for position, entry in enumerate(datasec.entries):
        declaration = btf.type(entry.type_id)
        type_id = entry.type_id
        editor.set_linkage(type_id, LINKAGE_GLOBAL)
        if isinstance(declaration, Func):
            dummy = dummy or editor.add_var(_DUMMY_KSYM, number, LINKAGE_GLOBAL)
            type_id = dummy
            _name_params(btf, editor, declaration)
        else:
            editor.set_type(type_id, number)
        entries.append(DatasecEntry(type_id, position * _KSYM_SIZE, _KSYM_SIZE))
    editor.set_datasec(datasec.id, len(entries) * _KSYM_SIZE, entries)


def _int_id(btf: BTF, editor: BTFEditor) -> int:
    """A 32-bit integer type, added if the object has none."""
    for id in ids_of_kinds(btf, KIND_INT):
        found = btf.type(id)
        if isinstance(found, Int) and found.bits == 32:
            return id
    return editor.add_int("int", 4, 32, INT_SIGNED)


def _name_params(btf: BTF, editor: BTFEditor, func: Func) -> None:
    """Give every parameter without a name one: the kernel wants names for all parameters of functions."""
    proto = btf.type(func.type_id)
    if isinstance(proto, FuncProto):
        for index, param in enumerate(proto.params):
            if param.type_id and not param.name:
                editor.set_param_name(proto.id, index, _DUMMY_KSYM)
