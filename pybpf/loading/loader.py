"""From an ObjectSpec to descriptors: the steps of a load, in order, and their undoing.

The order, and why:

0. which programs are wanted: struct_ops maps decide about theirs;
1. extern values, because maps and instructions hold them;
2. CO-RE relocation of each function, before functions are copied into the programs that call them;
3. the object's BTF, because maps and programs name it;
4. maps: create, fill, freeze, map into memory;
5. programs: put the functions together, write map descriptors and kernel addresses into the instructions, load;
6. what needs programs: slots of program arrays, values of struct_ops maps.

Whatever fails, everything made so far is closed again, in reverse order.

Source of the order: bpf_object_prepare() and bpf_object_load() of libbpf.
"""

from __future__ import annotations

import sys

from pybpf import constants as c
from pybpf import syscall
from pybpf.btf import kernel
from pybpf.btf.relocation import Relocator
from pybpf.elf.datasec import kernel_btf
from pybpf.elf.linking import link
from pybpf.elf.sections import USDT
from pybpf.errors import BPFError, ObjectError
from pybpf.loading.code import ProgramCode
from pybpf.loading.maps import MapCreator
from pybpf.loading.programs import Job, load_programs
from pybpf.loading.tokens import open_token

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from pybpf.btf.reader import BTF
    from pybpf.elf.linking import Image
    from pybpf.loading.externs import Resolution
    from pybpf.loading.kernel_btf import ModuleDescriptors
    from pybpf.loading.struct_ops import StructOps
    from pybpf.maps import Map
    from pybpf.program import Program
    from pybpf.spec import Function, MapSpec, ObjectSpec, ProgramSpec
    from pybpf.syscall.fd import FD, FdLike, HasFileno


ATTACHES_BY_BTF = frozenset({c.BPF_PROG_TYPE_TRACING, c.BPF_PROG_TYPE_LSM, c.BPF_PROG_TYPE_EXT})
CONTEXT_TAG = b"\0arg:ctx\0"
"""As the strings of BTF have it."""

MULTI_ATTACH = frozenset({c.BPF_TRACE_FENTRY_MULTI, c.BPF_TRACE_FEXIT_MULTI, c.BPF_TRACE_FSESSION_MULTI})


class Options:
    """How an object is loaded. See `pybpf.load` for the meaning of each."""

    __slots__ = ("btf", "kconfig", "log_level", "log_size", "pin_root", "reuse", "token")

    def __init__(
        self,
        *,
        btf: BTF | str | None = None,
        kconfig: str | None = None,
        log_level: int = 0,
        log_size: int = 0,
        pin_root: str = "/sys/fs/bpf",
        reuse: Mapping[str, Map | FD | int] | None = None,
        token: str | os.PathLike[str] | FdLike | None = None,
    ) -> None:
        self.btf = btf
        self.kconfig = kconfig
        self.log_level = log_level
        self.log_size = log_size
        self.pin_root = pin_root
        self.reuse = dict(reuse or {})
        self.token = token


class Modules:
    """Descriptors of the BTF of modules. What finds them is imported when the first one is asked for."""

    def __init__(self) -> None:
        self._found: ModuleDescriptors | None = None

    def get(self, module: str) -> FD:
        """See `ModuleDescriptors.get`."""
        if self._found is None:
            from pybpf.loading.kernel_btf import ModuleDescriptors

            self._found = ModuleDescriptors()
        return self._found.get(module)

    def close(self) -> None:
        if self._found is not None:
            self._found.close()


class Loader:
    """One load. `run()` leaves maps and programs, or raises and leaves nothing."""

    def __init__(self, spec: ObjectSpec, options: Options) -> None:
        self.spec = spec
        self.options = options
        self._modules = Modules()
        self._creator = MapCreator(spec, options, self._modules)
        self.maps = self._creator.maps
        self.programs: dict[str, Program] = {}
        self.btf_fd: FD | None = None
        self.token_fd: FD | None = None
        self._patched: dict[Function, bytearray] = {}
        self._ksyms: dict[str, Resolution] = {}
        self._relocator: Relocator | None = None
        self._twins: dict[str, dict[int, int]] = {}
        self._struct_ops: StructOps | None = None
        self._wanted: list[ProgramSpec] = []

    def run(self) -> None:
        if self.spec.byte_order != sys.byteorder:
            raise ObjectError(
                f"{self.spec.name} is {self.spec.byte_order}-endian: this machine can read it, but not load it"
            )
        unknown = self.options.reuse.keys() - self.spec.maps.keys()
        if unknown:
            raise ObjectError(f"{self.spec.name} has no map {min(unknown)!r} to reuse a descriptor for")
        try:
            self.token_fd = self._creator.token_fd = open_token(self.options.token)
            self._choose_programs()
            self._resolve_externs()
            self._relocate_functions()
            self._load_btf()
            self._creator.btf_fd = self.btf_fd
            self._find_digests()
            self._creator.create_all()
            code = self._code(self.maps.fds)
            try:
                jobs = [self._prepare(program, code) for program in self._wanted]
                load_programs(self, jobs)
            finally:
                code.close()
            self._bind_constants(jobs)
            self._creator.fill_program_arrays(self.programs)
            self._creator.fill_struct_ops(self.programs)
        except BaseException:
            self.undo()
            raise
        finally:
            self._modules.close()
            if self.token_fd is not None:
                self.token_fd.close()
        kernel.store_index()

    def undo(self) -> None:
        for program in self.programs.values():
            program.close()
        self._creator.undo()
        if self.btf_fd is not None:
            self.btf_fd.close()

    def _choose_programs(self) -> None:
        """Which programs to load: their own `autoload`, or the struct_ops maps that name them."""
        programs = self.spec.programs.values()
        if any(one.struct_ops is not None for one in self.spec.maps.values()) or any(
            program.type_number == c.BPF_PROG_TYPE_STRUCT_OPS for program in programs
        ):
            from pybpf.loading.kernel_btf import kernel_btfs
            from pybpf.loading.struct_ops import StructOps

            self._struct_ops = StructOps(self.spec, kernel_btfs)
            self._creator.layouts = self._struct_ops.layouts
            self._wanted = [program for program in programs if self._struct_ops.is_loaded(program)]
        else:
            self._wanted = [program for program in programs if program.autoload]

    def _code(self, maps: Mapping[str, HasFileno]) -> ProgramCode:
        """What writes the descriptors of these maps into programs."""
        return ProgramCode(self.spec, maps, self._creator.data_offsets, self._ksyms, self._modules, self.token_fd)

    def _find_digests(self) -> None:
        """What exclusive maps know their programs by: the final code, in which descriptors of maps do not count."""
        exclusive = [one for one in self.spec.maps.values() if one.exclusive_program is not None and one.autocreate]
        if not exclusive:
            return
        from pybpf.asm.digest import ANY_MAP, program_digest

        code = self._code({one.name: ANY_MAP for one in self.spec.maps.values() if one.autocreate})
        try:
            for one in exclusive:
                program = self.spec.programs.get(one.exclusive_program or "")
                if program is None:
                    raise ObjectError(f"map {one.name!r}: there is no program {one.exclusive_program!r} to be only for")
                image = self._link(program)
                code.write(image)
                self._creator.digests[one.name] = program_digest(image.instructions)
        finally:
            code.close()

    # Externs

    def _resolve_externs(self) -> None:
        if not self.spec.externs:
            return
        from pybpf.loading import externs

        self._ksyms = externs.resolve_ksyms(self.spec, kernel.vmlinux, kernel.modules)
        kconfig = self.spec.maps.get(".kconfig")
        if kconfig is not None:
            self._fill_kconfig(kconfig)

    def _fill_kconfig(self, spec: MapSpec) -> None:
        from pybpf import compat
        from pybpf.loading import externs
        from pybpf.symbols.kallsyms import has_syscall_wrapper

        image = externs.kconfig_image(
            self.spec,
            self.options.kconfig,
            {
                "LINUX_KERNEL_VERSION": externs.kernel_version,
                "LINUX_HAS_BPF_COOKIE": lambda: compat.has_bpf_cookie(self.token_fd),
                "LINUX_HAS_SYSCALL_WRAPPER": has_syscall_wrapper,
            },
        )
        spec.data = bytearray(image.ljust(spec.value_size, b"\0"))

    # CO-RE

    def _relocate_functions(self) -> None:
        """Relocate entry programs that will be loaded, and every subprogram: any of them may call it."""
        wanted = {program.function for program in self._wanted}
        for function in self.spec.functions:
            if function.core_relocations and (function in wanted or not function.is_entry):
                code = self._patched[function] = bytearray(function.instructions)
                self._core().apply(code, function.core_relocations, function.name)

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
                self._relocator = Relocator(self.spec.btf, kernel.vmlinux(), modules=kernel.modules)
        return self._relocator

    # BTF

    def _load_btf(self) -> None:
        if self.spec.btf is not None:
            required = any(spec.struct_ops is not None for spec in self.spec.maps.values())
            data = kernel_btf(self.spec)
            if CONTEXT_TAG in data:
                data = self._fix_context_args(data)
            try:
                self.btf_fd = syscall.btf_load(data, token_fd=self.token_fd)
            except BPFError:
                from pybpf.loading.btf import load_btf

                what = f"object {self.spec.name!r}"
                self.btf_fd = load_btf(data, what, required=required, token_fd=self.token_fd)

    def _fix_context_args(self, data: bytes) -> bytes:
        """Say by types what tags say that this kernel does not know (before Linux 6.8); the BTF with these types."""
        from pybpf.probe.features import has_feature

        if not has_feature("context_tags", token_fd=self.token_fd):
            from pybpf.elf.context_args import fix_context_args

            programs = [(program, link(self.spec, program, self._patched)) for program in self._wanted]
            data, self._twins = fix_context_args(data, programs)
        return data

    # Programs

    def _prepare(self, spec: ProgramSpec, code: ProgramCode) -> Job:
        image = self._link(spec)
        fields = self._attributes(spec)
        fields["fd_array"] = code.write(image)
        return Job(self, spec, image, fields)

    def _bind_constants(self, jobs: list[Job]) -> None:
        """Let every program keep the object's constants, used or not: `bpftool prog show` prints metadata from them.

        BPF_PROG_BIND_MAP, Linux 5.10. A refusal changes nothing for the programs.
        """
        names = [one.name for one in self.spec.maps.values() if one.is_internal and one.section.startswith(".rodata")]
        for name in names:
            for job in jobs:
                if name in self.maps.fds and all(one.name != name for _, one in job.image.relocations):
                    try:
                        syscall.prog_bind_map(self.programs[job.spec.name], self.maps.fds[name])
                    except BPFError:
                        continue

    def _link(self, spec: ProgramSpec) -> Image:
        image = link(self.spec, spec, self._patched)
        if spec.name in self._twins:
            image.rename_functions(self._twins[spec.name])
        return image

    def _attributes(self, spec: ProgramSpec) -> dict[str, object]:
        """The fields of BPF_PROG_LOAD that follow from the section and its target."""
        fields: dict[str, object] = {
            "expected_attach_type": spec.attach_type_number,
            "prog_flags": spec.flags,
            "kern_version": self.spec.kernel_version or 0,
            "token_fd": self.token_fd,
        }
        if spec.ifindex:
            fields["ifindex"] = spec.ifindex
        if spec.signature:
            fields["signature"], fields["keyring_id"] = spec.signature, spec.keyring_id
        if self._struct_ops is not None and spec.name in self._struct_ops.targets:
            target = self._struct_ops.targets[spec.name]
            fields["attach_btf_id"] = target.type_id
            fields["expected_attach_type"] = target.member
            if target.module:
                fields["attach_btf_obj_fd"] = self._modules.get(target.module)
            return fields
        if spec.section_definition is not None and spec.section_definition.flags & USDT:
            from pybpf import compat

            if compat.has_uprobe_multi(self.token_fd):
                fields["expected_attach_type"] = c.BPF_TRACE_UPROBE_MULTI
        if spec.attach_type_number in MULTI_ATTACH:
            module, colon, _ = spec.attach_target.rpartition(":")
            if colon:
                fields["attach_btf_obj_fd"] = self._modules.get(module)
            return fields
        if spec.type_number not in ATTACHES_BY_BTF:
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
        from pybpf.loading.kernel_btf import find_attach_target

        try:
            type_id, module = find_attach_target(spec.attach_target, spec.attach_type_number)
        except ObjectError as error:
            raise ObjectError(f"program {spec.name!r}: {error}") from None
        fields["attach_btf_id"] = type_id
        if module:
            fields["attach_btf_obj_fd"] = self._modules.get(module)
        return fields

    # What the report of a rejected program needs

    def core_description(self, function: Function, index: int) -> str:
        """The CO-RE relocation at an instruction of a function, in words; empty when there is none."""
        for relocation in function.core_relocations:
            if relocation.index == index:
                return self._core().resolve(relocation).description
        return ""


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
