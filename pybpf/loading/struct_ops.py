"""struct_ops: fitting an object's structs of function pointers to the kernel's.

Rules:

* Pure: type information in, a layout out. The kernel's value type ``bpf_struct_ops_<name>`` is searched in vmlinux,
  then in each module; the struct ``<name>`` inside it is what the object's struct stands for.
* Members are matched by name. One that the kernel lacks must be zero; others must be of the same kind and size.
* A program belongs to one member of one kernel struct, whatever number of maps names it. It is loaded when a map that
  names it is created; a program that no map names is loaded when its own `autoload` says so.

Source: bpf_map__init_kern_struct_ops() and bpf_object_adjust_struct_ops_autoload() of libbpf.
"""

from __future__ import annotations

import sys

from pybpf.btf.kinds import KIND_STRUCT, FuncProto, Ptr, Struct, kind_name
from pybpf.constants import BPF_PROG_TYPE_STRUCT_OPS
from pybpf.errors import BTFError, ObjectError, RelocationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from pybpf.btf.kinds import Member
    from pybpf.btf.reader import BTF
    from pybpf.spec import MapSpec, ObjectSpec, ProgramSpec

VALUE_PREFIX = "bpf_struct_ops_"


class Target:
    """Which member of which kernel struct a program implements.

    Attributes:
        type_id: the struct's id in the BTF of vmlinux or `module` (attach_btf_id).
        member: the member's index (expected_attach_type).
        module: name of the module, or an empty string.
    """

    __slots__ = ("member", "module", "type_id")

    def __init__(self, type_id: int, member: int, module: str) -> None:
        self.type_id = type_id
        self.member = member
        self.module = module

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Target):
            return NotImplemented
        return (self.type_id, self.member, self.module) == (other.type_id, other.member, other.module)

    __hash__ = None  # type: ignore[assignment]  # compared only

    def __repr__(self) -> str:
        return f"Target(type_id={self.type_id}, member={self.member}, module={self.module!r})"


class Layout:
    """The kernel's form of one map's value.

    Attributes:
        btf: the type information of vmlinux or of a module.
        module: name of that module, or an empty string.
        value_type_id: the id of ``struct bpf_struct_ops_<name>``.
        value_size: its bytes.
        slots: (name of a program, offset in the value where its descriptor goes).
        targets: what each of these programs implements.
    """

    __slots__ = ("_image", "btf", "module", "slots", "targets", "value_size", "value_type_id")

    def __init__(self, btf: BTF, value: Struct) -> None:
        self.btf = btf
        self.module = "" if btf.base is None else btf.name
        self.value_type_id = value.id
        self.value_size = value.size
        self.slots: list[tuple[str, int]] = []
        self.targets: dict[str, Target] = {}
        self._image = bytearray(value.size)

    def write(self, offset: int, data: bytes | bytearray) -> None:
        self._image[offset : offset + len(data)] = data

    def value(self, descriptors: Mapping[str, int]) -> bytes:
        """The map's value with the descriptors of the programs in their places."""
        image = bytearray(self._image)
        size = self.btf.pointer_size
        for program, offset in self.slots:
            image[offset : offset + size] = descriptors[program].to_bytes(size, sys.byteorder)
        return bytes(image)

    def __repr__(self) -> str:
        return f"<Layout of type {self.value_type_id}, {self.value_size} bytes, {len(self.slots)} programs>"


def match(spec: MapSpec, btfs: Iterable[BTF]) -> Layout:
    """Fit one map to the first of the given BTFs (vmlinux, then modules) that has its value type.

    Raises:
        RelocationError: the kernel has no such struct, or it differs in a way that cannot be bridged.
        BTFError: types of the object are malformed.
    """
    ops = spec.struct_ops
    assert ops is not None and spec.btf is not None
    name = ops.type_name
    where = f"map {spec.name!r}: struct {name}"
    btf, value = _find_value(name, btfs, where)
    kernel = btf.get(name, KIND_STRUCT)
    data = next((member for member in value.members if kernel is not None and member.type_id == kernel.id), None)
    if not isinstance(kernel, Struct) or data is None:
        raise RelocationError(f"{where}: the kernel's struct {value.name} does not hold it")
    layout = Layout(btf, value)
    local = spec.btf.type(ops.type_id)
    assert isinstance(local, Struct)
    known = {member.name: index for index, member in reversed(list(enumerate(kernel.members)))}
    for member in local.members:
        program = ops.members.get(member.name)
        _match_member(layout, spec, member, program, kernel, known.get(member.name), data.bit_offset // 8)
    return layout


def _find_value(name: str, btfs: Iterable[BTF], where: str) -> tuple[BTF, Struct]:
    for btf in btfs:
        try:
            ids = btf.own_ids(VALUE_PREFIX + name, KIND_STRUCT)
            found = btf.type(ids[0]) if ids else None
        except BTFError:
            if btf.base is None:
                raise
            continue  # a module whose BTF is broken must not stop a load that does not need it
        if isinstance(found, Struct):
            return btf, found
    raise RelocationError(f"{where}: the kernel has no struct {VALUE_PREFIX}{name}, so it cannot be implemented here")


def _match_member(
    layout: Layout, spec: MapSpec, member: Member, program: str | None, kernel: Struct, index: int | None, base: int
) -> None:
    """Bring one member's bytes or program to where the kernel has the member of the same name (at this index)."""
    local, data = spec.btf, spec.data
    assert local is not None and data is not None
    where = f"map {spec.name!r}: member {member.name!r} of struct {kernel.name}"
    start = member.bit_offset // 8
    content = data[start : start + local.size_of(member.type_id)]
    if index is None:
        if program is not None or any(content):
            raise RelocationError(f"{where}: the kernel does not have it, so it must be zero")
        return
    counterpart = kernel.members[index]
    if member.bitfield_size or counterpart.bitfield_size:
        raise RelocationError(f"{where}: bit fields cannot be set")
    local_type = local.resolve(member.type_id)
    kernel_type = layout.btf.resolve(counterpart.type_id)
    if local_type.kind != kernel_type.kind:
        kinds = f"{kind_name(local_type.kind)} here and {kind_name(kernel_type.kind)} in the kernel"
        raise RelocationError(f"{where}: it is of kind {kinds}")
    offset = base + counterpart.bit_offset // 8
    if isinstance(kernel_type, Ptr):
        if program is None:
            return
        if not isinstance(layout.btf.resolve(kernel_type.type_id), FuncProto):
            raise RelocationError(f"{where}: it is no function in the kernel")
        target = Target(kernel.id, index, layout.module)
        if layout.targets.setdefault(program, target) != target:
            raise ObjectError(f"{where}: program {program!r} stands for another member too")
        layout.slots.append((program, offset))
        return
    kernel_size = layout.btf.size_of(counterpart.type_id)
    if kernel_size != len(content):
        raise RelocationError(f"{where}: it has {len(content)} bytes here and {kernel_size} in the kernel")
    layout.write(offset, content)


class StructOps:
    """All struct_ops maps of one object, fitted to one kernel.

    Attributes:
        layouts: by name of the map; maps that are not created have none.
        targets: by name of the program.
    """

    __slots__ = ("_dropped", "_spec", "_used", "layouts", "targets")

    def __init__(self, spec: ObjectSpec, btfs: Callable[[], Iterable[BTF]]) -> None:
        """Fit the maps of an object; `btfs` gives the kernel's type information and is asked only when needed.

        Raises:
            RelocationError, ObjectError, BTFError: a map does not fit; the message names map and member.
        """
        self._spec = spec
        self.layouts: dict[str, Layout] = {}
        self.targets: dict[str, Target] = {}
        self._used: dict[str, bool] = {}
        self._dropped: set[str] = set()
        for one in spec.maps.values():
            if one.struct_ops is not None:
                self._add(one, btfs)

    def _add(self, one: MapSpec, btfs: Callable[[], Iterable[BTF]]) -> None:
        ops = one.struct_ops
        assert ops is not None
        members = dict(ops.members)
        for name in members.values():
            program = self._spec.programs.get(name)
            if program is None or program.type_number != BPF_PROG_TYPE_STRUCT_OPS:
                raise ObjectError(f"map {one.name!r}: {name!r} is no struct_ops program of this object")
        for name in members.values():
            self._used[name] = self._used.get(name, False) or one.autocreate
        self._dropped.update(set(ops.programs.values()) - set(members.values()))
        if not one.autocreate:
            return
        layout = self.layouts[one.name] = match(one, btfs())
        for name, target in layout.targets.items():
            if self.targets.setdefault(name, target) != target:
                raise ObjectError(f"map {one.name!r}: program {name!r} stands for a member of another struct too")

    def is_loaded(self, program: ProgramSpec) -> bool:
        """Whether a program is to be loaded: for struct_ops programs the maps decide.

        Raises:
            ObjectError: it is to be loaded by its own `autoload`, but no map names it, so it can do nothing.
        """
        if program.type_number != BPF_PROG_TYPE_STRUCT_OPS:
            return program.autoload
        wanted = self._used.get(program.name, program.autoload and program.name not in self._dropped)
        if wanted and program.name not in self.targets:
            raise ObjectError(f"program {program.name!r}: no struct_ops map names it, so there is nothing it can do")
        return wanted
