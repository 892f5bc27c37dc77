"""From an ObjectSpec to descriptors: the steps of a load, in order, and their undoing.

The order, and why:

1. extern values, because maps and instructions hold them;
2. CO-RE relocation of each function, before functions are copied into the programs that call them;
3. the object's BTF, because maps and programs name it;
4. maps: create, fill, freeze, map into memory;
5. programs: put the functions together, write map descriptors and kernel addresses into the instructions, load;
6. what needs programs: slots of program arrays.

Whatever fails, everything made so far is closed again, in reverse order.

Source of the order: bpf_object_prepare() and bpf_object_load() of libbpf.
"""

from __future__ import annotations

import errno
import sys

from pybpf import compat, externs, syscall, verifier
from pybpf import constants as c
from pybpf.asm import slots
from pybpf.btf import kernel
from pybpf.btf.relocation import Relocator
from pybpf.elf.datasec import kernel_btf
from pybpf.elf.linking import link
from pybpf.errors import BPFError, BPFNotFoundError, BTFError, NotSupportedError, ObjectError
from pybpf.kernel_btf import ModuleDescriptors, find_attach_target, module_btfs
from pybpf.maps import make_map
from pybpf.probe.privileges import permission_hint
from pybpf.program import Program
from pybpf.syscall.cpus import possible_cpus
from pybpf.syscall.fd import FD, duplicate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from pybpf.btf.reader import BTF
    from pybpf.btf.relocation import Resolution
    from pybpf.elf.linking import Image
    from pybpf.maps import Map
    from pybpf.spec import Function, MapSpec, ObjectSpec, ProgramSpec, Relocation

    class Closes(Protocol):
        def close(self) -> None: ...


NAME_LENGTH = 15
"""Characters of a program's or map's name that the kernel keeps (BPF_OBJ_NAME_LEN less the NUL)."""

UNUSABLE_MAP = 2001000000
UNRESOLVED_KFUNC = 2002000000
"""Helper numbers that stand for what is not there, as libbpf writes them; the verifier rejects reachable ones."""

PSEUDO_MAP_FD = 1
PSEUDO_MAP_VALUE = 2
PSEUDO_BTF_ID = 3
PSEUDO_KFUNC_CALL = 2

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

ATTACHES_BY_BTF = frozenset({c.BPF_PROG_TYPE_TRACING, c.BPF_PROG_TYPE_LSM, c.BPF_PROG_TYPE_EXT})
MULTI_ATTACH = frozenset({c.BPF_TRACE_FENTRY_MULTI, c.BPF_TRACE_FEXIT_MULTI, c.BPF_TRACE_FSESSION_MULTI})


class Options:
    """How an object is loaded. See `pybpf.load` for the meaning of each."""

    __slots__ = ("btf", "kconfig", "log_level", "log_size", "pin_root", "reuse")

    def __init__(
        self,
        *,
        btf: BTF | str | None = None,
        kconfig: str | None = None,
        log_level: int = 0,
        log_size: int = 0,
        pin_root: str = "/sys/fs/bpf",
        reuse: Mapping[str, Map | FD | int] | None = None,
    ) -> None:
        self.btf = btf
        self.kconfig = kconfig
        self.log_level = log_level
        self.log_size = log_size
        self.pin_root = pin_root
        self.reuse = dict(reuse or {})


class Loader:
    """One load. `run()` leaves maps and programs, or raises and leaves nothing."""

    def __init__(self, spec: ObjectSpec, options: Options) -> None:
        self.spec = spec
        self.options = options
        self.maps: dict[str, Map] = {}
        self.programs: dict[str, Program] = {}
        self.btf_fd: FD | None = None
        self._pinned: list[Map] = []
        self._modules = ModuleDescriptors()
        self._patched: dict[Function, bytearray] = {}
        self._relocated: dict[Function, list[Resolution]] = {}
        self._ksyms: dict[str, externs.Resolution] = {}
        self._relocator: Relocator | None = None

    def run(self) -> None:
        if self.spec.byte_order != sys.byteorder:
            raise ObjectError(
                f"{self.spec.name} is {self.spec.byte_order}-endian: this machine can read it, but not load it"
            )
        unknown = self.options.reuse.keys() - self.spec.maps.keys()
        if unknown:
            raise ObjectError(f"{self.spec.name} has no map {min(unknown)!r} to reuse a descriptor for")
        try:
            self._ksyms = externs.resolve_ksyms(self.spec, kernel.vmlinux, module_btfs)
            self._fill_kconfig()
            self._relocate_functions()
            self._load_btf()
            for spec in self.spec.maps.values():
                if spec.autocreate:
                    self._make_map(spec)
            for program in self.spec.programs.values():
                if program.autoload:
                    self.programs[program.name] = self._load_program(program)
            self._fill_program_arrays()
        except BaseException:
            self.undo()
            raise
        finally:
            self._modules.close()
        kernel.store_index()

    def undo(self) -> None:
        for made in self._pinned:
            made.unpin()
        for program in self.programs.values():
            program.close()
        for made in reversed(self.maps.values()):
            made.close()
        if self.btf_fd is not None:
            self.btf_fd.close()

    # Externs

    def _fill_kconfig(self) -> None:
        spec = self.spec.maps.get(".kconfig")
        if spec is None:
            return
        from pybpf.symbols.kallsyms import has_syscall_wrapper

        image = externs.kconfig_image(
            self.spec,
            self.options.kconfig,
            {
                "LINUX_KERNEL_VERSION": externs.kernel_version,
                "LINUX_HAS_BPF_COOKIE": compat.has_bpf_cookie,
                "LINUX_HAS_SYSCALL_WRAPPER": has_syscall_wrapper,
            },
        )
        spec.data = bytearray(image.ljust(spec.value_size, b"\0"))

    # CO-RE

    def _relocate_functions(self) -> None:
        """Relocate entry programs that will be loaded, and every subprogram: any of them may call it."""
        wanted = {program.function for program in self.spec.programs.values() if program.autoload}
        for function in self.spec.functions:
            if function.core_relocations and (function in wanted or not function.is_entry):
                code = bytearray(function.instructions)
                self._relocated[function] = self._core().apply(code, function.core_relocations, function.name)
                self._patched[function] = code

    def _core(self) -> Relocator:
        if self._relocator is None:
            assert self.spec.btf is not None  # relocations come from .BTF.ext, which needs .BTF
            target = self.options.btf
            if isinstance(target, str):
                from pybpf.btf.reader import BTF

                target = BTF.from_file(target)
            if target is not None:
                self._relocator = Relocator(self.spec.btf, target, custom=True)
            else:
                self._relocator = Relocator(self.spec.btf, kernel.vmlinux(), modules=module_btfs)
        return self._relocator

    # BTF

    def _load_btf(self) -> None:
        """Give the object's BTF to the kernel. Going on without it is allowed: only types are lost (libbpf does so)."""
        if self.spec.btf is None:
            return
        data = kernel_btf(self.spec)
        try:
            self.btf_fd = syscall.btf_load(data)
            return
        except BPFError as error:
            if not compat.has_btf():
                return
            missing = compat.missing_btf_features()
            if missing:
                from pybpf.btf.writer import sanitise

                try:
                    self.btf_fd = syscall.btf_load(sanitise(data, missing))
                    return
                except BPFError as second:
                    error = second
            if any(spec.struct_ops is not None for spec in self.spec.maps.values()):
                raise error

    # Maps

    def _make_map(self, spec: MapSpec) -> None:
        reuse = self.options.reuse.get(spec.name)
        if reuse is not None:
            self.maps[spec.name] = self._adopt(FD(duplicate(reuse)), spec)
            return
        path = spec.pin_path
        if path is None and spec.pinning:
            path = f"{self.options.pin_root}/{spec.name}"
        if path is not None and self._reuse_pinned(spec, path):
            return
        fd = self._create(spec)
        made = self._adopt(fd, spec)
        self.maps[spec.name] = made
        if spec.data is not None and spec.is_internal:
            self._fill(made, spec)
        elif spec.values and spec.type_number != c.BPF_MAP_TYPE_PROG_ARRAY:
            for slot, name in spec.values.items():
                inner = self.maps.get(name)
                if inner is None:
                    self._make_map(self.spec.maps[name])
                    inner = self.maps[name]
                syscall.map_update_elem(fd, _u32(slot), _u32(inner.fileno()))
        if path is not None:
            self._pin(made, spec, path)

    def _adopt(self, fd: FD, spec: MapSpec) -> Map:
        """The typed map over a new descriptor, which it closes if anything goes wrong."""
        try:
            from pybpf.btf.codec import codec

            # Data maps stay bytes: their variables are typed one by one, as globals.
            btf = None if spec.is_internal else spec.btf
            return make_map(
                fd,
                name=spec.name,
                type_number=spec.type_number,
                key_size=spec.key_size,
                value_size=spec.value_size,
                max_entries=_max_entries(spec),
                flags=spec.flags,
                map_extra=spec.map_extra,
                key_codec=codec(btf, spec.key_type_id) if btf is not None and spec.key_type_id else None,
                value_codec=codec(btf, spec.value_type_id) if btf is not None and spec.value_type_id else None,
                btf=btf,
                spec=spec,
            )
        except BaseException:
            fd.close()
            raise

    def _create(self, spec: MapSpec) -> FD:
        """BPF_MAP_CREATE, with what older kernels lack left out after the first refusal."""
        inner_fd: FD | None = None
        try:
            if spec.inner is not None:
                inner_fd = self._create(spec.inner)
            with_btf = (
                self.btf_fd is not None
                and (spec.key_type_id or spec.value_type_id)
                and spec.type_number not in NO_BTF_MAPS
            )
            first: BPFError | None = None
            for typed in (True, False) if with_btf else (False,):
                try:
                    return compat.with_memlock(
                        syscall.map_create,
                        spec.type_number,
                        key_size=spec.key_size,
                        value_size=spec.value_size,
                        max_entries=_max_entries(spec),
                        map_flags=spec.flags,
                        name=spec.kernel_name[:NAME_LENGTH],
                        inner_map_fd=inner_fd,
                        numa_node=spec.numa_node,
                        ifindex=spec.ifindex,
                        map_extra=spec.map_extra,
                        btf_fd=self.btf_fd if typed else None,
                        btf_key_type_id=spec.key_type_id if typed else 0,
                        btf_value_type_id=spec.value_type_id if typed else 0,
                    )
                except BPFError as error:
                    first = first or error
            assert first is not None
            first.what = f"map {spec.name!r}"
            if first.errno in (errno.EPERM, errno.EACCES):
                first.hint = permission_hint()
            raise first
        finally:
            if inner_fd is not None:
                inner_fd.close()

    def _fill(self, made: Map, spec: MapSpec) -> None:
        """Write the initial image of a data map; freeze it when programs may only read it."""
        assert spec.data is not None
        syscall.map_update_elem(made.fileno(), _u32(0), bytes(spec.data))
        if spec.is_read_only:
            syscall.map_freeze(made.fileno())

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
                spec.max_entries,
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
        self.maps[spec.name] = self._adopt(fd, spec)
        return True

    def _pin(self, made: Map, spec: MapSpec, path: str) -> None:
        import os

        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
        made.pin(path)
        self._pinned.append(made)

    # Programs

    def _load_program(self, spec: ProgramSpec) -> Program:
        image = link(self.spec, spec, self._patched)
        code = image.instructions
        module_slots: list[str] = [""]  # fd_array: slot 0 stands for vmlinux
        for index, relocation in image.relocations:
            self._patch(code, index, relocation, module_slots)
        fd, log = verifier.load_program(self, spec, image, self._attributes(spec, module_slots))
        return Program(fd, name=spec.name, spec=spec, btf=self.spec.btf, log=log)

    def _patch(self, code: bytearray, index: int, relocation: Relocation, module_slots: list[str]) -> None:
        """Write what one ELF relocation stands for into the instruction at this slot."""
        kind = relocation.kind
        if kind == "map" or kind == "data":
            made = self.maps.get(relocation.name)
            if made is None:
                number = UNUSABLE_MAP + list(self.spec.maps).index(relocation.name)
                slots.set_call(code, index, number)
                slots.set_call(code, index + 1, number)
            elif kind == "map":
                slots.set_src(code, index, PSEUDO_MAP_FD)
                slots.set_imm(code, index, made.fileno())
            else:
                offset = slots.get_imm(code, index) + relocation.offset
                slots.set_src(code, index, PSEUDO_MAP_VALUE)
                slots.set_imm64(code, index, made.fileno(), offset)
        elif kind == "extern":
            self._patch_extern(code, index, relocation.name)
        elif kind == "extern_call":
            self._patch_kfunc_call(code, index, relocation.name, module_slots)
        elif kind == "jump_table":
            raise NotSupportedError(errno.EOPNOTSUPP, "BPF_MAP_CREATE", f"jump table of {relocation.name}")

    def _patch_extern(self, code: bytearray, index: int, name: str) -> None:
        extern = self.spec.externs[name]
        if extern.section == ".kconfig":
            slots.set_src(code, index, PSEUDO_MAP_VALUE)
            slots.set_imm64(code, index, self.maps[".kconfig"].fileno(), extern.offset)
            return
        found = self._ksyms[name]
        if found.is_typed:
            module = self._modules.get(found.module).fileno() if found.module else 0
            slots.set_src(code, index, PSEUDO_BTF_ID)
            slots.set_imm64(code, index, found.type_id, module)
        else:
            slots.set_src(code, index, 0)
            slots.set_imm64(code, index, found.address, found.address >> 32)

    def _patch_kfunc_call(self, code: bytearray, index: int, name: str, module_slots: list[str]) -> None:
        found = self._ksyms[name]
        if not found.found:
            slots.set_call(code, index, UNRESOLVED_KFUNC + list(self.spec.externs).index(name))
            return
        if found.module not in module_slots:
            module_slots.append(found.module)
        slots.set_src(code, index, PSEUDO_KFUNC_CALL)
        slots.set_imm(code, index, found.type_id)
        slots.set_off(code, index, module_slots.index(found.module))

    def _attributes(self, spec: ProgramSpec, module_slots: list[str]) -> dict[str, object]:
        """The fields of BPF_PROG_LOAD that follow from the section and its target."""
        fields: dict[str, object] = {
            "expected_attach_type": spec.attach_type_number,
            "prog_flags": spec.flags,
            "kern_version": self.spec.kernel_version or 0,
        }
        if len(module_slots) > 1:
            fields["fd_array"] = [self._modules.get(name).fileno() if name else 0 for name in module_slots]
        if spec.type_number not in ATTACHES_BY_BTF or spec.attach_type_number in MULTI_ATTACH:
            return fields
        if spec.attach_program is not None:
            fields["attach_prog_fd"] = spec.attach_program
            fields["attach_btf_id"] = _function_of_program(spec)
            return fields
        if spec.type_number == c.BPF_PROG_TYPE_EXT:
            raise ObjectError(
                f"program {spec.name!r}: freplace needs attach_program, the program whose function it replaces"
            )
        if not spec.attach_target:
            raise ObjectError(f"program {spec.name!r}: SEC({spec.section!r}) names no target; set attach_target")
        try:
            type_id, module = find_attach_target(spec.attach_target, spec.attach_type_number)
        except ObjectError as error:
            raise ObjectError(f"program {spec.name!r}: {error}") from None
        fields["attach_btf_id"] = type_id
        if module:
            fields["attach_btf_obj_fd"] = self._modules.get(module)
        return fields

    def _fill_program_arrays(self) -> None:
        for spec in self.spec.maps.values():
            if spec.type_number != c.BPF_MAP_TYPE_PROG_ARRAY or spec.name not in self.maps:
                continue
            for slot, name in spec.values.items():
                program = self.programs.get(name)
                if program is not None:
                    syscall.map_update_elem(self.maps[spec.name].fileno(), _u32(slot), _u32(program.fileno()))

    # What the report of a rejected program needs

    def core_description(self, function: Function, index: int) -> str:
        """The CO-RE relocation at an instruction of a function, in words; empty when there is none."""
        for relocation, resolution in zip(function.core_relocations, self._relocated.get(function, ()), strict=False):
            if relocation.index == index:
                return resolution.description
        return ""


def _u32(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def _max_entries(spec: MapSpec) -> int:
    """A perf event array without a size gets one entry for each possible CPU."""
    if spec.type_number == c.BPF_MAP_TYPE_PERF_EVENT_ARRAY and not spec.max_entries:
        return possible_cpus()
    return spec.max_entries


def _function_of_program(spec: ProgramSpec) -> int:
    """The BTF id of the function that a freplace or tracing program attaches to, in the target program's BTF."""
    from pybpf.btf.kinds import KIND_FUNC
    from pybpf.maps import btf_by_id

    assert spec.attach_program is not None
    info = syscall.prog_info(spec.attach_program)
    if not info.btf_id:
        raise ObjectError(f"program {spec.name!r}: its target program was loaded without BTF")
    found = btf_by_id(info.btf_id).get(spec.attach_target, KIND_FUNC)
    if found is None:
        raise ObjectError(f"program {spec.name!r}: the target program has no function {spec.attach_target!r}")
    return found.id
