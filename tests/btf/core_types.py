"""Types for tests of CO-RE, written without a compiler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pybpf.btf.kinds import Member
from pybpf.btf.reader import BTF
from pybpf.btf.relocation import CoreRelocation, Relocator, Resolution
from pybpf.btf.writer import BTFBuilder

ORDERS = ("little", "big")

SIGNED, CHAR, BOOL = 1, 2, 4


class Types(BTFBuilder):
    """A builder that has the integers already."""

    def __init__(self, byte_order: str = "little", base: BTF | None = None) -> None:
        super().__init__(byte_order, base)
        self.u8 = self.add_int("unsigned char", 1)
        self.u16 = self.add_int("unsigned short", 2)
        self.u32 = self.add_int("unsigned int", 4)
        self.u64 = self.add_int("unsigned long", 8)
        self.s32 = self.add_int("int", 4, encoding=SIGNED)
        self.s64 = self.add_int("long", 8, encoding=SIGNED)
        self.base_btf = base

    def struct(self, name: str, *members: tuple[str, int, int] | Member, size: int = 64) -> int:
        """Members as (name, type, byte offset)."""
        return self.add_struct(name, size, _in_bits(members))

    def union(self, name: str, *members: tuple[str, int, int] | Member, size: int = 64) -> int:
        return self.add_union(name, size, _in_bits(members))

    def array(self, type_id: int, count: int) -> int:
        return self.add_array(type_id, self.u32, count)

    def function(self, result: int, *params: int) -> int:
        return self.add_func_proto(result, [(f"a{index}", param) for index, param in enumerate(params)])

    def btf(self, name: str = "") -> BTF:
        return BTF.from_bytes(self.to_bytes(), base=self.base_btf, name=name)


def _in_bits(members: Iterable[tuple[str, int, int] | Member]) -> Iterator[Member]:
    for member in members:
        yield member if isinstance(member, Member) else Member(member[0], member[1], member[2] * 8)


def bitfield(name: str, type_id: int, bit_offset: int, bits: int) -> Member:
    return Member(name, type_id, bit_offset, bits)


def resolve(local: Types, target: Types | None, type_id: int, access: str, kind: int) -> Resolution:
    """One relocation against one kernel."""
    kernel = target.btf("vmlinux") if target is not None else None
    return Relocator(local.btf(), kernel).resolve(CoreRelocation(0, type_id, access, kind))
