"""IntEnum classes of C enums. Imported when the first enum value is decoded, because `enum` is slow to import."""

from __future__ import annotations

from enum import IntEnum

from pybpf.btf.records import field_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

MAX_MEMBERS = 1 << 16
"""An enum with more members stays plain integers."""


class CEnum(IntEnum):
    """A C enum. Members pickle and copy as what they are in C: their number."""

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        return (int, (int(self),))


def make_enum(name: str, declared: Sequence[tuple[str, int]]) -> type[IntEnum]:
    """An IntEnum of (name, value) pairs. Names that an enum cannot have get a trailing underscore."""
    members: dict[str, int] = {}
    for member, value in declared[:MAX_MEMBERS]:
        attribute = field_name(member)
        while attribute in members or attribute == "mro" or (attribute[:1] == "_" == attribute[-1:]):
            attribute += "x" if attribute[-1:] == "_" else "_"
        members[attribute] = value
    make: Any = CEnum
    made: type[IntEnum] = make(name, members)
    return made
