"""struct_ops: structs of function pointers that programs implement, such as a congestion control.

Rules of this module:

* Each variable of a struct_ops section is a map whose value the kernel defines. Here only what the file says is read:
  the local struct, its bytes, and which program each function pointer refers to. The kernel's layout is found at load.
* ``.struct_ops.link`` asks for a link; a leading ``?`` says that the map is not created unless asked for.

Source: tools/lib/bpf/libbpf.c, init_struct_ops_maps(), bpf_object__collect_st_ops_relos().
"""

from __future__ import annotations

from pybpf.btf.kinds import FuncProto, Ptr, Struct, Var
from pybpf.btf.reader import essential_name
from pybpf.constants import BPF_F_LINK, BPF_MAP_TYPE_STRUCT_OPS, BPF_PROG_TYPE_STRUCT_OPS
from pybpf.elf.container import SHN_LORESERVE
from pybpf.elf.functions import INSTRUCTION_SIZE
from pybpf.elf.sections import lookup
from pybpf.mapspec import MapSpec, StructOpsSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.elf.container import Container, Section
    from pybpf.elf.datasec import DatasecLayout
    from pybpf.elf.functions import FunctionTable


def read_struct_ops(container: Container, section: Section, layout: DatasecLayout) -> list[tuple[int, MapSpec]]:
    """The maps of one struct_ops section as (offset, map).

    Raises:
        ObjectError: a variable is not of a named struct, or leaves the section.
    """
    btf = layout.btf
    content = bytes(container.content(section))
    found = []
    for var_id, offset, _ in layout.entries:
        var = btf.type(var_id)
        struct = btf.resolve(var.type_id) if isinstance(var, Var) else None
        if not isinstance(struct, Struct) or not struct.name:
            raise container.error(f"section {section.name!r}: {var.name!r} is not of a struct with a name")
        if offset + struct.size > len(content):
            raise container.error(f"section {section.name!r}: {var.name!r} reaches over its end ({len(content)} bytes)")
        spec = MapSpec(
            var.name,
            BPF_MAP_TYPE_STRUCT_OPS,
            key_size=4,
            value_size=struct.size,
            max_entries=1,
            flags=BPF_F_LINK if section.name.endswith(".link") else 0,
            section=section.name,
            btf=btf,
        )
        spec.autocreate = not section.name.startswith("?")
        spec.data = content[offset : offset + struct.size]
        spec.struct_ops = StructOpsSpec(spec, struct.id, essential_name(struct.name))
        found.append((offset, spec))
    return found


def read_programs(
    container: Container, relocations: Section, maps: list[tuple[int, MapSpec]], functions: FunctionTable
) -> None:
    """Find the programs that the function pointers of one section's maps refer to.

    Raises:
        ObjectError: a function pointer refers to something else than a struct_ops program.
    """
    for place, symbol_index in container.relocations(relocations):
        where = f"section {relocations.name!r}: relocation at offset {place:#x}"
        symbol = container.symbol(symbol_index, where)
        found = next(((offset, one) for offset, one in maps if offset <= place < offset + one.value_size), None)
        if found is None:
            raise container.error(f"{where} is in no struct_ops map")
        offset, spec = found
        member = _function_pointer(spec, place - offset)
        if member is None:
            raise container.error(f"{where} is not at a function pointer of {spec.name!r}")
        target = f"struct_ops map {spec.name!r}: {member} = {symbol.name!r}"
        if symbol.section >= SHN_LORESERVE or symbol.value % INSTRUCTION_SIZE:
            raise container.error(f"{target} is no function")
        function = functions.at(symbol.section, symbol.value // INSTRUCTION_SIZE)
        if function is None or function.start * INSTRUCTION_SIZE != symbol.value:
            raise container.error(f"{target} is no function of this object")
        definition = lookup(function.section)
        if definition is None or definition[0].type != BPF_PROG_TYPE_STRUCT_OPS:
            raise container.error(f"{target} is in section {function.section!r}, not in struct_ops")
        assert spec.struct_ops is not None
        spec.struct_ops.programs[place - offset] = function.name
        spec.struct_ops.members[member] = function.name


def _function_pointer(spec: MapSpec, offset: int) -> str | None:
    """The name of the function pointer at an offset of the local struct, or None."""
    assert spec.btf is not None and spec.struct_ops is not None
    btf = spec.btf
    struct = btf.type(spec.struct_ops.type_id)
    if not isinstance(struct, Struct):
        return None
    for member in struct.members:
        if member.bit_offset == offset * 8 and not member.bitfield_size:
            pointer = btf.resolve(member.type_id)
            if isinstance(pointer, Ptr) and isinstance(btf.resolve(pointer.type_id), FuncProto):
                return member.name
    return None
