"""MapCreator: the maps of one load, made in order: reuse what is pinned, create, fill, freeze, pin.

Rules:

* A map that is given by descriptor, or found pinned, is not filled; into program arrays that were found go the object's
  programs (libbpf does so). A pinned map must have the shape that the object wants.
* Type information is left out when the kernel refuses a map with it: only types are lost (libbpf does so).
* Initial elements that are programs wait until the programs are loaded.

Source: bpf_object__create_maps() of libbpf.
"""

from __future__ import annotations

import errno
import os
import sys

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import ENOTSUPP, BPFError, BPFExistsError, BPFNotFoundError, ObjectError
from pybpf.maps.loaded import LoadedMaps
from pybpf.memlock import with_memlock
from pybpf.syscall.creation import map_fill
from pybpf.syscall.fd import FD, duplicate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pybpf.loading.loader import Modules, Options
    from pybpf.loading.struct_ops import Layout
    from pybpf.maps import Map
    from pybpf.program import Program
    from pybpf.spec import MapSpec, ObjectSpec
    from pybpf.syscall import MapInfo

NAME_LENGTH = 15
"""Characters of a map's name that the kernel keeps (BPF_OBJ_NAME_LEN less the NUL)."""

NO_BTF_MAPS = frozenset(
    {
        c.BPF_MAP_TYPE_PERF_EVENT_ARRAY,
        c.BPF_MAP_TYPE_CGROUP_ARRAY,
        c.BPF_MAP_TYPE_STACK_TRACE,
        c.BPF_MAP_TYPE_ARRAY_OF_MAPS,
        c.BPF_MAP_TYPE_HASH_OF_MAPS,
        c.BPF_MAP_TYPE_DEVMAP,
        c.BPF_MAP_TYPE_DEVMAP_HASH,
        c.BPF_MAP_TYPE_CPUMAP,
        c.BPF_MAP_TYPE_XSKMAP,
        c.BPF_MAP_TYPE_SOCKMAP,
        c.BPF_MAP_TYPE_SOCKHASH,
        c.BPF_MAP_TYPE_QUEUE,
        c.BPF_MAP_TYPE_STACK,
        c.BPF_MAP_TYPE_ARENA,
    }
)
"""Map types whose driver refuses BTF (bpf_map__create() of libbpf)."""

_RINGS = (c.BPF_MAP_TYPE_RINGBUF, c.BPF_MAP_TYPE_USER_RINGBUF)
"""They have no keys and values: the kernel wants sizes of 0, and no types."""


class MapCreator:
    """Makes the maps of one object.

    Attributes:
        maps: what has been made.
        btf_fd: the object's BTF in the kernel, once it is there.
        layouts: the kernel's form of struct_ops maps, by name.
        digests: name of an exclusive map -> digest of the program that may use it.
        token_fd: a BPF token to make maps with, or None.
        data_offsets: name of an arena -> where the object's variables begin in it.
    """

    def __init__(self, spec: ObjectSpec, options: Options, modules: Modules) -> None:
        self.spec = spec
        self.options = options
        self.layouts: Mapping[str, Layout] = {}
        self.digests: dict[str, bytes] = {}
        self.token_fd: FD | None = None
        self.data_offsets: dict[str, int] = {}
        self._modules = modules
        self.btf_fd: FD | None = None
        self.maps = LoadedMaps()
        self._pinned: list[Map] = []

    def create_all(self) -> None:
        """Make every map whose `autocreate` is set.

        Raises:
            ObjectError: what is pinned at a map's path is no such map.
            BPFError: the kernel refused one; the message names it.
        """
        for spec in self.spec.maps.values():
            if spec.autocreate:
                self._make(spec)

    def fill_program_arrays(self, programs: Mapping[str, Program]) -> None:
        """Put the programs that the object names into its program arrays.

        Raises:
            ObjectError: one of them was not loaded.
            BPFError: the kernel refused one.
        """
        arrays = [
            (spec, self.maps.fds[spec.name])
            for spec in self.spec.maps.values()
            if spec.type_number == c.BPF_MAP_TYPE_PROG_ARRAY
            and spec.name in self.maps.fds
            and spec.name not in self.options.reuse
        ]
        for spec, _ in arrays:
            for slot, name in spec.values.items():
                if name not in programs:
                    raise ObjectError(
                        f"map {spec.name!r}: program {name!r}, which is to stand in slot {slot}, is not loaded: set "
                        f"its autoload, or leave it out: del spec.maps[{spec.name!r}].values[{slot}]"
                    )
        for spec, fd in arrays:
            for slot, name in spec.values.items():
                try:
                    syscall.map_update_elem(fd, u32(slot), u32(programs[name].fileno()))
                except BPFError as error:
                    error.what = f"map {spec.name!r}: slot {slot}, program {name!r}"
                    raise

    def fill_struct_ops(self, programs: Mapping[str, Program]) -> None:
        """Give each struct_ops map the value that attaching it will register."""
        if not self.layouts:
            return
        from pybpf.maps.struct_ops import StructOpsMap

        for name, layout in self.layouts.items():
            made = self.maps[name]
            if isinstance(made, StructOpsMap):
                made.prepare(layout.value({program: programs[program].fileno() for program, _ in layout.slots}))

    def undo(self) -> None:
        """Remove the pins that were made, and close the maps."""
        for made in self._pinned:
            made.unpin()
        self.maps.close()

    # One map

    def _make(self, spec: MapSpec) -> None:
        if spec.name in self.maps:  # an inner map that an outer one needed before its turn
            return
        reuse = self.options.reuse.get(spec.name)
        if reuse is not None:
            self._adopt(reuse, spec)
            return
        path = spec.pin_path
        if path is None and spec.pinning:
            path = f"{self.options.pin_root}/{spec.name}"
        if path is None:
            self._make_anew(spec)
            return
        if self._reuse_pinned(spec, path):
            return
        self._make_anew(spec)
        try:
            self._pin(self.maps[spec.name], path)
        except BPFExistsError:  # somebody else was quicker: theirs is the one to share
            self.maps.discard(spec.name)
            if not self._reuse_pinned(spec, path):
                raise

    def _make_anew(self, spec: MapSpec) -> None:
        fd = self._create(spec)
        self._add(fd, spec)
        if spec.data is not None and spec.is_internal:
            self._fill(fd, spec)
        elif spec.type_number == c.BPF_MAP_TYPE_ARENA:
            self._map_arena(self.maps[spec.name], spec)
        elif spec.values and spec.type_number != c.BPF_MAP_TYPE_PROG_ARRAY:
            for slot, name in spec.values.items():
                self._make(self.spec.maps[name])
                syscall.map_update_elem(fd, u32(slot), u32(self.maps.fds[name].fileno()))

    def _add(self, fd: FD, spec: MapSpec, shape: MapInfo | None = None) -> None:
        """Take a new descriptor. `shape` is what the kernel says of a map that was not made from the spec."""
        self.maps.add(spec.name, fd, lambda: self._over(fd, spec, shape))
        if spec.type_number == c.BPF_MAP_TYPE_ARENA and spec.data:
            self.data_offsets[spec.name] = _data_offset(
                spec, spec.max_entries if shape is None else shape.max_entries, self.token_fd
            )

    def _over(self, fd: FD, spec: MapSpec, shape: MapInfo | None) -> Map:
        """The typed map over a descriptor."""
        from pybpf.btf.codec import codec
        from pybpf.maps import make_map

        layout = self.layouts.get(spec.name)
        # Data maps stay bytes: their variables are typed one by one, as globals.
        btf = None if spec.is_internal else spec.btf
        key_codec = codec(btf, spec.key_type_id) if btf is not None and spec.key_type_id else None
        value_codec = codec(btf, spec.value_type_id) if btf is not None and spec.value_type_id else None
        if layout is not None:
            btf, value_codec = layout.btf, codec(layout.btf, layout.value_type_id)
        made = make_map(
            fd,
            name=spec.name,
            type_number=spec.type_number if shape is None else shape.type,
            key_size=self._key_size(spec) if shape is None else shape.key_size,
            value_size=self._value_size(spec) if shape is None else shape.value_size,
            max_entries=_max_entries(spec) if shape is None else shape.max_entries,
            flags=spec.flags if shape is None else shape.map_flags,
            map_extra=spec.map_extra if shape is None else shape.map_extra,
            key_codec=key_codec,
            value_codec=value_codec,
            btf=btf,
            spec=spec,
        )
        if spec.name in self.data_offsets:
            from pybpf.maps.arena import ArenaMap

            if isinstance(made, ArenaMap):
                made.data_offset = self.data_offsets[spec.name]
        if made.type_number == c.BPF_MAP_TYPE_RINGBUF:
            from pybpf.events.drops import DropCounter
            from pybpf.maps.ringbuf import RingBufferMap

            if isinstance(made, RingBufferMap):
                made.drops = DropCounter(self.spec, self.maps, spec.name)
        return made

    @staticmethod
    def _key_size(spec: MapSpec) -> int:
        """Bytes of a key."""
        return 0 if spec.type_number in _RINGS else spec.key_size

    def _value_size(self, spec: MapSpec) -> int:
        """Bytes of a value; those of a struct_ops map are the kernel's.

        The value type of an event buffer is that of its records (`pybpf.events.types`), not of the map's values.
        """
        if spec.type_number in _RINGS:
            return 0
        if spec.type_number == c.BPF_MAP_TYPE_PERF_EVENT_ARRAY and spec.value_type_id and spec.value_size != 4:
            return 4
        layout = self.layouts.get(spec.name)
        return spec.value_size if layout is None else layout.value_size

    def _create(self, spec: MapSpec) -> FD:
        """BPF_MAP_CREATE; without types when the kernel refuses the map with them."""
        fields = self._attributes(spec)
        types = self._types(spec)
        inner_fd: FD | None = None
        try:
            if spec.inner is not None:
                inner_fd = fields["inner_map_fd"] = self._create(spec.inner)
            try:
                return with_memlock(syscall.map_create, spec.type_number, **fields, **types)
            except BPFError as error:
                refusal = error
            is_early = refusal.errno == ENOTSUPP and spec.name in self.layouts
            if is_early:
                from pybpf import compat

                compat.make_kernel_read_its_btf(self.token_fd)
            if is_early or types:
                try:
                    return with_memlock(syscall.map_create, spec.type_number, **fields)
                except BPFError:
                    pass
        finally:
            if inner_fd is not None:
                inner_fd.close()
        refusal.what = f"map {spec.name!r}"
        if refusal.errno in (errno.EPERM, errno.EACCES):
            from pybpf.probe.privileges import permission_hint

            refusal.hint = permission_hint()
        raise refusal

    def _attributes(self, spec: MapSpec) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "key_size": self._key_size(spec),
            "value_size": self._value_size(spec),
            "max_entries": _max_entries(spec),
            "map_flags": spec.flags,
            "name": spec.kernel_name[:NAME_LENGTH],
            "numa_node": spec.numa_node,
            "ifindex": spec.ifindex,
            "map_extra": spec.map_extra,
        }
        if self.token_fd is not None:
            fields["token_fd"] = self.token_fd
        if spec.name in self.digests:
            fields["excl_prog_hash"] = self.digests[spec.name]
        layout = self.layouts.get(spec.name)
        if layout is not None:
            fields["btf_fd"] = self.btf_fd  # the kernel wants some, although the value's type is its own
            fields["btf_vmlinux_value_type_id"] = layout.value_type_id
            if layout.module:
                fields["value_type_btf_obj_fd"] = self._modules.get(layout.module)
        return fields

    def _types(self, spec: MapSpec) -> dict[str, Any]:
        """The fields that tell the kernel the types of keys and values; none where it does not take them."""
        if self.btf_fd is None or not (spec.key_type_id or spec.value_type_id):
            return {}
        if spec.type_number in NO_BTF_MAPS or spec.type_number in _RINGS:
            return {}
        return {
            "btf_fd": self.btf_fd,
            "btf_key_type_id": spec.key_type_id,
            "btf_value_type_id": spec.value_type_id,
        }

    def _fill(self, fd: FD, spec: MapSpec) -> None:
        """Write the initial image of a data map; freeze it when programs may only read it."""
        assert spec.data is not None
        image = bytes(spec.data).ljust(spec.value_size, b"\0")
        if spec.type_number == c.BPF_MAP_TYPE_PERCPU_ARRAY:
            image = image.ljust(spec.value_size + 7 & ~7, b"\0") * syscall.possible_cpus()
        map_fill(fd, image)
        if spec.is_read_only:
            syscall.map_freeze(fd)

    def _map_arena(self, made: Map, spec: MapSpec) -> None:
        """Map an arena, which the verifier wants before it sees programs, and copy its global variables into it."""
        from pybpf.maps.arena import ArenaMap

        assert isinstance(made, ArenaMap)
        try:
            memory = made.memory
        except BPFError as error:
            error.what = f"map {spec.name!r}"
            raise
        if spec.data:
            memory[made.data_offset : made.data_offset + len(spec.data)] = spec.data

    # Maps that are there already

    def _adopt(self, given: Map | FD | int, spec: MapSpec) -> None:
        """Use the map behind a descriptor that the caller gave; its shape is what the kernel says."""
        fd = FD(duplicate(given))
        try:
            shape = syscall.map_info(fd)
        except BaseException:
            fd.close()
            raise
        self._add(fd, spec, shape)

    def _reuse_pinned(self, spec: MapSpec, path: str) -> bool:
        """Take the map that is pinned at the path, if there is one and it has the same shape."""
        try:
            fd = syscall.obj_get(path)
        except BPFNotFoundError:
            return False
        try:
            info = syscall.map_info(fd)
            flags = info.map_flags
            if spec.type_number in (c.BPF_MAP_TYPE_DEVMAP, c.BPF_MAP_TYPE_DEVMAP_HASH):
                flags &= ~c.BPF_F_RDONLY_PROG  # the kernel adds it by itself
            have = (info.type, info.key_size, info.value_size, info.max_entries, flags, info.map_extra)
            want = (
                spec.type_number,
                spec.key_size,
                spec.value_size,
                _max_entries(spec),
                spec.flags,
                spec.map_extra,
            )
            if have != want:
                names = ("type", "key_size", "value_size", "max_entries", "flags", "map_extra")
                wrong = ", ".join(
                    f"{name} {a} (the object wants {b})" for name, a, b in zip(names, have, want, strict=True) if a != b
                )
                raise ObjectError(f"map {spec.name!r}: the map pinned at {path} has {wrong}")
        except BaseException:
            fd.close()
            raise
        self._add(fd, spec, info)
        return True

    def _pin(self, made: Map, path: str) -> None:
        folder = os.path.dirname(path)
        is_new = not os.path.isdir(folder)
        if is_new:
            os.mkdir(folder, 0o700)
        try:
            made.pin(path)
        except BaseException:
            if is_new:
                os.rmdir(folder)
            raise
        self._pinned.append(made)


def u32(value: int) -> bytes:
    """The 4 bytes of a key or descriptor."""
    return value.to_bytes(4, sys.byteorder)


def _data_offset(spec: MapSpec, pages: int, token_fd: FD | None) -> int:
    """Where the object's variables begin in the memory of an arena.

    They lie at its end, so that programs find the rest at the place where it would be without them, as far as the
    kernel takes so large an offset.

    Raises:
        ObjectError: the arena is too small for them.
    """
    from pybpf.probe.features import has_feature
    from pybpf.syscall import PAGE_SIZE

    assert spec.data is not None
    room = pages * PAGE_SIZE
    need = -(-len(spec.data) // PAGE_SIZE) * PAGE_SIZE
    if need > room:
        raise ObjectError(f"map {spec.name!r}: its variables need {need} bytes, it has {room}")
    return room - need if has_feature("full_range_offsets", token_fd=token_fd) else 0


def _max_entries(spec: MapSpec) -> int:
    """A perf event array without a size gets one entry for each possible CPU."""
    if spec.type_number == c.BPF_MAP_TYPE_PERF_EVENT_ARRAY and not spec.max_entries:
        from pybpf.syscall.cpus import possible_cpus

        return possible_cpus()
    return spec.max_entries
