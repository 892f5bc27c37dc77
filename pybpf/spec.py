"""ObjectSpec: everything a compiled BPF object file says, ready to be edited and loaded.

Rules of this module:

* A spec is pure data: reading one needs no privileges and no kernel, and gives the same on every run.
* Objects of either byte order can be read. Only the host's can be loaded, which is checked at load time.
* What may be edited is checked when it is set; what follows from the file alone is not copied twice.

Source: tools/lib/bpf/libbpf.c (what an object file may contain, and in which order things are numbered).
"""

from __future__ import annotations

import os

from pybpf import constants
from pybpf.elf.data import Variable
from pybpf.elf.datasec import DatasecLayout
from pybpf.elf.externs import Extern
from pybpf.elf.functions import Function
from pybpf.elf.relocations import Relocation
from pybpf.elf.sections import SectionDefinition, lookup
from pybpf.errors import ObjectError
from pybpf.mapspec import MapSpec, StructOpsSpec, check_number, kernel_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from pybpf.abi import AttachType, ProgramType
    from pybpf.btf.ext import BTFExt
    from pybpf.btf.reader import BTF
    from pybpf.elf.relocation_report import RelocationReport
    from pybpf.object import Object
    from pybpf.variables import Globals

    FdLike = Any
    Buffer = Any

__all__ = [
    "DatasecLayout",
    "Extern",
    "Function",
    "MapSpec",
    "ObjectSpec",
    "ProgramSpec",
    "Relocation",
    "SectionDefinition",
    "StructOpsSpec",
    "Variable",
]

FILE_LIMIT = 256 << 20
"""Bytes of the largest object file that is read."""

_NAME_LENGTH = 15


class ProgramSpec:
    """One entry program.

    Attributes:
        name: the function's.
        section: the ELF section's name without a leading ``?``.
        function: its code.
        type_number: BPF_PROG_TYPE_..., 0 if the section name is not known; `type` is the same as an enum. Setting
            another type drops `section_definition`.
        attach_type_number: the expected attach type, BPF_...; `attach_type` is the same as an enum.
        flags: BPF_F_... of program load.
        autoload: whether it is loaded with the object. A leading ``?`` of the section sets it to False.
        autoattach: whether ``Object.attach()`` attaches it.
        attach_target: what to attach to, from the section name: the text after the first slash. May be set.
        attach_program: descriptor of the program to attach to (freplace, or tracing of BPF programs), or None.
        section_definition: the row of the table of section names, or None.
        license: of this program; the object's unless set.
        log_level: of the verifier, 0 to 4; 0 asks for a log only after a failure.
        ifindex: the network device that it is offloaded or bound to, or 0.
        signature: a PKCS#7 signature of its instructions as they are loaded, or empty (Linux 6.18).
        keyring_id: the keyring with the key that the signature is checked with.
        spec: the object that it is part of.
    """

    __slots__ = (
        "_attach_type_number",
        "_flags",
        "_license",
        "_log_level",
        "_type_number",
        "attach_program",
        "attach_target",
        "autoattach",
        "autoload",
        "function",
        "ifindex",
        "keyring_id",
        "name",
        "section",
        "section_definition",
        "signature",
        "spec",
    )

    def __init__(self, spec: ObjectSpec, function: Function) -> None:
        self.spec = spec
        self.function = function
        self.name = function.name
        self.section = function.section.removeprefix("?")
        self.autoload = self.section == function.section
        self.autoattach = True
        self.attach_target = ""
        self.attach_program: FdLike | None = None
        self.ifindex = 0
        self.signature = b""
        self.keyring_id = 0
        self.section_definition: SectionDefinition | None = None
        self._license: str | None = None
        self._log_level = 0
        self._type_number = constants.BPF_PROG_TYPE_UNSPEC
        self._attach_type_number = 0
        self._flags = 0
        found = lookup(function.section)
        if found is not None:
            definition, self.attach_target = found
            self.section_definition = definition
            self._type_number = definition.type
            self._attach_type_number = definition.attach_type
            self._flags = definition.program_flags

    @property
    def type(self) -> ProgramType:
        """The type as an enum."""
        from pybpf.abi import ProgramType

        return ProgramType(self._type_number)

    @type.setter
    def type(self, value: int) -> None:
        self.type_number = value

    @property
    def type_number(self) -> int:
        """BPF_PROG_TYPE_..."""
        return self._type_number

    @type_number.setter
    def type_number(self, value: int) -> None:
        value = check_number(f"program {self.name!r}: type", value)
        if value != self._type_number:
            self.section_definition = None
        self._type_number = value

    @property
    def type_name(self) -> str:
        """The type in words, as bpftool writes it: ``"xdp"``; a number this version does not know as digits."""
        names = constants.PROG_TYPE_NAMES
        known = names[self._type_number] if self._type_number < len(names) else None
        return known or str(self._type_number)

    @property
    def attach_type(self) -> AttachType:
        """The expected attach type as an enum."""
        from pybpf.abi import AttachType

        return AttachType(self._attach_type_number)

    @attach_type.setter
    def attach_type(self, value: int) -> None:
        self.attach_type_number = value

    @property
    def attach_type_number(self) -> int:
        """The expected attach type, BPF_..."""
        return self._attach_type_number

    @attach_type_number.setter
    def attach_type_number(self, value: int) -> None:
        self._attach_type_number = check_number(f"program {self.name!r}: attach_type", value)

    @property
    def flags(self) -> int:
        """BPF_F_... of program load."""
        return self._flags

    @flags.setter
    def flags(self, value: int) -> None:
        self._flags = check_number(f"program {self.name!r}: flags", value)

    @property
    def log_level(self) -> int:
        """Of the verifier: bit 0 and 1 how much it tells, bit 2 statistics (include/linux/bpf_verifier.h)."""
        return self._log_level

    @log_level.setter
    def log_level(self, value: int) -> None:
        self._log_level = check_number(f"program {self.name!r}: log_level", value, 7)

    @property
    def license(self) -> str:
        """The license the kernel is told: some helpers are only for those compatible with the GPL."""
        return self.spec.license if self._license is None else self._license

    @license.setter
    def license(self, value: str) -> None:
        self._license = value

    @property
    def kernel_name(self) -> str:
        """The at most 15 characters that the kernel gets."""
        return kernel_name(self.name)

    @property
    def instructions(self) -> bytes:
        """Its own instructions before any relocation, in the file's byte order, without subprograms."""
        return self.function.instructions

    def facts(self) -> tuple[object, ...]:
        """Everything in it, as a tuple that is equal for equal programs."""
        return (
            self.name,
            self.section,
            self._type_number,
            self._attach_type_number,
            self._flags,
            self.autoload,
            self.autoattach,
            self.attach_target,
            self.license,
            self._log_level,
            self.ifindex,
            self.signature,
            self.keyring_id,
        )

    def __repr__(self) -> str:
        autoload = "" if self.autoload else " autoload=False"
        return (
            f"<ProgramSpec {self.name!r} {self.type_name} SEC({self.section!r}) "
            f"{self.function.count} instructions{autoload}>"
        )


class ObjectSpec:
    """One object file.

    Attributes:
        name: at most 15 characters, the prefix of the kernel's names of data maps.
        byte_order: ``"little"`` or ``"big"``.
        license: of the section ``license``; may be empty, which is not compatible with the GPL.
        kernel_version: of the section ``version`` (KERNEL_VERSION), or None.
        programs: entry programs by name, in the order of the file.
        maps: by name, in the order in which they are created.
        variables: global variables by name.
        externs: by name; settings first, in the order of their offsets.
        functions: all functions, sorted by place.
        btf: type information, or None.
        ext: function, line and CO-RE information, or None.
        datasecs: layouts of the data sections that BTF describes, by type id.
        exception_callbacks: name of a program -> names of the functions tagged as its exception callback.
        jump_tables: content of ``.jumptables``, or None.
        warnings: what was ignored that usually matters, a sentence each.
    """

    __slots__ = (
        "_globals",
        "_text",
        "btf",
        "byte_order",
        "datasecs",
        "exception_callbacks",
        "ext",
        "externs",
        "functions",
        "jump_tables",
        "kernel_version",
        "license",
        "maps",
        "name",
        "programs",
        "variables",
        "warnings",
    )

    def __init__(self, name: str, byte_order: Literal["little", "big"] = "little") -> None:
        self.name = name.partition(".")[0][:_NAME_LENGTH]
        self.byte_order: Literal["little", "big"] = byte_order
        self.license = ""
        self.kernel_version: int | None = None
        self.programs: dict[str, ProgramSpec] = {}
        self.maps: dict[str, MapSpec] = {}
        self.variables: dict[str, Variable] = {}
        self._globals: Globals | None = None
        self.externs: dict[str, Extern] = {}
        self.functions: list[Function] = []
        self.btf: BTF | None = None
        self.ext: BTFExt | None = None
        self.datasecs: dict[int, DatasecLayout] = {}
        self.exception_callbacks: dict[str, list[str]] = {}
        self.jump_tables: bytes | None = None
        self.warnings: list[str] = []
        self._text: list[Function] | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> ObjectSpec:
        """Read an object file.

        Raises:
            OSError: the file cannot be read.
            ObjectError, BTFError: it is not a BPF object file, or a bad one; the message says where.
        """
        name = os.fspath(path)
        with open(path, "rb", buffering=0) as file:
            data = _read_all(file, name)
        return cls.from_bytes(data, name=os.path.basename(name), path=name)

    @classmethod
    def from_bytes(cls, data: Buffer, name: str = "object", *, path: str = "") -> ObjectSpec:
        """Read an object file from memory. `name` becomes the prefix of the kernel's names of data maps.

        Raises:
            ObjectError, BTFError: it is not a BPF object file, or a bad one; the message says where.
        """
        from pybpf.elf.collect import collect

        spec = cls(name)
        collect(spec, data, path or name)
        for function in spec.functions:
            if function.is_entry:
                if function.name in spec.programs:
                    raise ObjectError(f"{path or name}: two programs are called {function.name!r}")
                spec.programs[function.name] = ProgramSpec(spec, function)
        return spec

    def only(self, *names: str) -> None:
        """Load these programs and no others.

        Slots of program arrays for others are taken out of the spec. Programs of struct_ops maps are loaded with their
        maps as ever: see `MapSpec.autocreate`.

        Raises:
            ObjectError: there is no program of such a name; then nothing is changed.
        """
        for name in names:
            if name not in self.programs:
                raise ObjectError(f"{self.name} has no program {name!r}; it has {', '.join(self.programs) or 'none'}")
        for program in self.programs.values():
            program.autoload = program.name in names
        for one in self.maps.values():
            if one.type_number == constants.BPF_MAP_TYPE_PROG_ARRAY:
                one.values = {slot: name for slot, name in one.values.items() if name in names}

    @property
    def globals(self) -> Globals:
        """The initial values of the global variables by name, which may be set."""
        if self._globals is None:
            from pybpf.variables import Globals

            self._globals = Globals(self.variables, self.maps)
        return self._globals

    @property
    def subprograms(self) -> list[Function]:
        """The functions in ``.text``, sorted by place."""
        if self._text is None:
            self._text = [function for function in self.functions if not function.is_entry]
        return self._text

    def load(self, **options: Any) -> Object:
        """Load it into the running kernel; see `pybpf.load()` for the options and errors."""
        from pybpf.object import load

        return load(self, **options)

    def relocate(self, btf: BTF | str | os.PathLike[str] | None = None) -> RelocationReport:
        """What the CO-RE relocations come to against a kernel's types. Needs neither that kernel nor privileges.

        Args:
            btf: the types, or the path of a file that has them: BTF, or an ELF file with a section ``.BTF``. None:
                those of the running kernel and its modules.

        Raises:
            OSError: the file cannot be read.
            BTFError: the types are malformed, or the running kernel has none.
            ObjectError: the object has no type information.
        """
        from pybpf.elf.relocation_report import relocate

        if btf is None:
            from pybpf.btf import kernel

            return relocate(self, kernel.vmlinux(), kernel.modules)
        if isinstance(btf, (str, os.PathLike)):
            from pybpf.btf.reader import BTF

            btf = BTF.from_file(os.fspath(btf))
        return relocate(self, btf)

    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal digits of everything in the spec: equal for equal specs, on every run and machine
        with the same page size (which rounds the sizes of ring buffers).
        """
        from hashlib import sha256

        btf = self.btf
        facts = (
            self.name,
            self.byte_order,
            self.license,
            self.kernel_version,
            [program.facts() for program in self.programs.values()],
            [one.facts() for one in self.maps.values()],
            [variable.facts() for variable in self.variables.values()],
            [extern.facts() for extern in self.externs.values()],
            [function.facts() for function in self.functions],
            [layout.facts() for layout in self.datasecs.values()],
            sorted(self.exception_callbacks.items()),
            self.jump_tables,
            self.warnings,
            None if btf is None else bytes(btf.data),
            None if self.ext is None else bytes(self.ext.data),
        )
        return sha256(repr(facts).encode()).hexdigest()

    def describe(self) -> str:
        """A text of several lines that lists programs, maps, global variables and externs."""
        lines = [repr(self)[1:-1]]
        lines += ["programs:"] + [f"  {_program_line(program)}" for program in self.programs.values()]
        lines += ["maps:"] + [f"  {_map_line(one)}" for one in self.maps.values()]
        if self.variables:
            lines.append("variables:")
            lines += [f"  {one.name}: {one.size} bytes in {one.map}" for one in self.variables.values()]
        if self.externs:
            lines.append("externs:")
            lines += [f"  {repr(one)[8:-1]}" for one in self.externs.values()]
        if self.warnings:
            lines += ["warnings:"] + [f"  {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"<ObjectSpec {self.name!r} {self.byte_order}-endian, {len(self.programs)} programs, "
            f"{len(self.maps)} maps, {len(self.variables)} variables, license {self.license!r}>"
        )


def _program_line(program: ProgramSpec) -> str:
    off = "" if program.autoload else ", not loaded unless asked for"
    return f"{program.name}: {program.type_name}, SEC({program.section!r}), {program.function.count} instructions{off}"


def _map_line(one: MapSpec) -> str:
    flags = f", flags {one.flags:#x}" if one.flags else ""
    pinned = ", pinned by name" if one.pinning else ""
    return (
        f"{one.name}: {one.type_name}, key {one.key_size} bytes, value {one.value_size} bytes, "
        f"max_entries {one.max_entries}{flags}{pinned}"
    )


def _read_all(file: Any, name: str) -> bytes:
    """The content of an open file, never more than the limit (it may be a device without an end)."""
    size = os.fstat(file.fileno()).st_size
    if size > FILE_LIMIT:
        raise ObjectError(f"{name}: {size} bytes are more than an object file may have ({FILE_LIMIT})")
    chunks = []
    left = FILE_LIMIT + 1
    while left:
        chunk = file.read(min(left, max(size + 1, 1 << 16)))
        if not chunk:
            break
        chunks.append(chunk)
        left -= len(chunk)
    else:
        raise ObjectError(f"{name}: more than {FILE_LIMIT} bytes, which no object file has")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
