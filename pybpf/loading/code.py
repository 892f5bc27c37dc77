"""ProgramCode: what the instructions of linked programs wait for, written into them.

Rules:

* Each ELF relocation that linking left over becomes a map's descriptor, a place in a map, a kernel symbol's address, a
  BTF id or a kernel function.
* What is not there (a map that is not created, a weak kernel function) becomes a call of a helper that does not exist,
  whose number says which one: the verifier removes it when it cannot be reached, and reports it when it can.

Source: bpf_object__relocate_data() of libbpf.
"""

from __future__ import annotations

import errno
import sys

from pybpf import constants as c
from pybpf import syscall
from pybpf.asm import slots
from pybpf.errors import BPFError, NotSupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pybpf.elf.linking import Image
    from pybpf.loading.externs import Resolution
    from pybpf.loading.loader import Modules
    from pybpf.spec import ObjectSpec, Relocation
    from pybpf.syscall.fd import FD, FdLike, HasFileno

TARGET_SIZE = 16
"""Bytes of an element of a jump table (struct bpf_insn_array_value); the first 4 are the instruction's index."""

UNUSABLE_MAP = 2001000000
UNRESOLVED_KFUNC = 2002000000
"""Helper numbers that stand for what is not there, as libbpf writes them; the verifier rejects reachable ones."""


class ProgramCode:
    """Writes into the programs of one object. It holds the jump tables until it is closed.

    Args:
        maps: the descriptors of the maps that have been created, by name.
        offsets: where the object's variables begin in a map, by name, if not at 0.
        ksyms: what the kernel symbols are, by name.
        modules: descriptors of the BTF of modules.
        token_fd: a BPF token to make maps with.
    """

    def __init__(
        self,
        spec: ObjectSpec,
        maps: Mapping[str, HasFileno],
        offsets: Mapping[str, int],
        ksyms: Mapping[str, Resolution],
        modules: Modules,
        token_fd: FdLike | None = None,
    ) -> None:
        self.spec = spec
        self._maps = maps
        self._ksyms = ksyms
        self._modules = modules
        self._offsets = offsets
        self._token_fd = token_fd
        self._tables: list[FD] = []

    def write(self, image: Image) -> list[int]:
        """Write everything into one linked program; the descriptors that its calls refer to by index (fd_array).

        Raises:
            ObjectError, BPFError: the descriptor of a module's BTF cannot be had, or a jump table cannot be made.
        """
        code = image.instructions
        modules: list[str] = [""]  # slot 0 stands for vmlinux
        tables: dict[int, FD] = {}
        for index, relocation in image.relocations:
            if relocation.kind == "jump_table":
                self._write_jump_table(image, index, relocation, tables)
            else:
                self._write_one(code, index, relocation, modules)
        if len(modules) == 1:
            return []
        return [self._modules.get(name).fileno() if name else 0 for name in modules]

    def _write_one(self, code: bytearray, index: int, relocation: Relocation, modules: list[str]) -> None:
        kind = relocation.kind
        if kind == "map":
            fd = self._maps.get(relocation.name)
            if fd is None:
                self._write_missing_map(code, index, relocation.name)
            else:
                slots.set_src(code, index, c.BPF_PSEUDO_MAP_FD)
                slots.set_imm(code, index, fd.fileno())
        elif kind == "data":
            start = slots.get_imm(code, index) + self._offsets.get(relocation.name, 0)
            self._write_place(code, index, relocation.name, start + relocation.offset)
        elif kind == "extern":
            self._write_extern(code, index, relocation.name)
        elif kind == "extern_call":
            self._write_kfunc_call(code, index, relocation.name, modules)

    def _write_jump_table(self, image: Image, index: int, relocation: Relocation, tables: dict[int, FD]) -> None:
        """The map of instructions that an indirect jump of this program chooses from."""
        table = tables.get(relocation.offset)
        if table is None:
            from pybpf.elf.jump_tables import jump_targets

            table = tables[relocation.offset] = self._make_table(jump_targets(self.spec, image, index, relocation))
        slots.set_src(image.instructions, index, c.BPF_PSEUDO_MAP_VALUE)
        slots.set_off(image.instructions, index, 0)
        slots.set_imm(image.instructions, index, table.fileno())

    def _make_table(self, targets: list[int]) -> FD:
        try:
            table = syscall.map_create(
                c.BPF_MAP_TYPE_INSN_ARRAY,
                key_size=4,
                value_size=TARGET_SIZE,
                max_entries=len(targets),
                name=".jumptables",
                token_fd=self._token_fd,
            )
        except BPFError as error:
            error.what = "jump table"
            if error.errno != errno.EINVAL:
                raise
            raise NotSupportedError(
                errno.EOPNOTSUPP, error.command, error.what, "Indirect jumps need Linux 6.19, on x86-64 or arm64"
            ) from None
        self._tables.append(table)
        for number, target in enumerate(targets):
            key = number.to_bytes(4, sys.byteorder)
            syscall.map_update_elem(table, key, target.to_bytes(4, sys.byteorder).ljust(TARGET_SIZE, b"\0"))
        syscall.map_freeze(table)
        return table

    def close(self) -> None:
        """Let go of the jump tables, which programs that are loaded keep for themselves."""
        while self._tables:
            self._tables.pop().close()

    def _write_place(self, code: bytearray, index: int, name: str, offset: int) -> None:
        """The address of a byte in a map's value."""
        fd = self._maps.get(name)
        if fd is None:
            self._write_missing_map(code, index, name)
            return
        slots.set_src(code, index, c.BPF_PSEUDO_MAP_VALUE)
        slots.set_imm64(code, index, fd.fileno(), offset)

    def _write_missing_map(self, code: bytearray, index: int, name: str) -> None:
        number = UNUSABLE_MAP + list(self.spec.maps).index(name)
        slots.set_call(code, index, number)
        slots.set_call(code, index + 1, number)

    def _write_extern(self, code: bytearray, index: int, name: str) -> None:
        extern = self.spec.externs[name]
        if extern.section == ".kconfig":
            self._write_place(code, index, ".kconfig", extern.offset)
            return
        found = self._ksyms[name]
        if found.is_typed:
            module = self._modules.get(found.module).fileno() if found.module else 0
            slots.set_src(code, index, c.BPF_PSEUDO_BTF_ID)
            slots.set_imm64(code, index, found.type_id, module)
        else:
            slots.set_src(code, index, 0)
            slots.set_imm64(code, index, found.address, found.address >> 32)

    def _write_kfunc_call(self, code: bytearray, index: int, name: str, modules: list[str]) -> None:
        found = self._ksyms[name]
        if not found.found:
            slots.set_call(code, index, UNRESOLVED_KFUNC + list(self.spec.externs).index(name))
            return
        if found.module not in modules:
            modules.append(found.module)
        slots.set_src(code, index, c.BPF_PSEUDO_KFUNC_CALL)
        slots.set_imm(code, index, found.type_id)
        slots.set_off(code, index, modules.index(found.module))
