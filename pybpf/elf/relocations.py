"""Relocations: which instructions wait for a map, a variable, an extern or another function.

Rules of this module:

* A relocation is classified by its instruction and its symbol, never by its ELF type number.
* Only ``call`` and ``ldimm64`` can be relocated. What fits no class is an `ObjectError` that names the symbol.
* A relocation in code that no function covers is ignored: it belongs to a weak function that was overridden.

Source: tools/lib/bpf/libbpf.c, bpf_program__record_reloc().
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Kind = Literal["map", "data", "extern", "extern_call", "call", "function", "jump_table"]


class Relocation:
    """One instruction that waits for something.

    Attributes:
        index: the instruction's index within its function.
        kind: ``"map"`` (its descriptor), ``"data"`` (an address in a data map or arena), ``"extern"`` (the address or
            content of an extern), ``"extern_call"`` (a kernel function), ``"call"`` (a subprogram), ``"function"`` (the
            address of a subprogram), ``"jump_table"``.
        name: of the map or extern, or an empty string.
        offset: data: bytes to add to the instruction's own immediate; jump_table: byte offset in ``.jumptables``.
        target: call, function: instruction index in ``.text``.
        size: jump_table: bytes.
    """

    __slots__ = ("index", "kind", "name", "offset", "size", "target")

    def __init__(self, index: int, kind: Kind, name: str = "", offset: int = 0, target: int = 0, size: int = 0) -> None:
        self.index = index
        self.kind: Kind = kind
        self.name = name
        self.offset = offset
        self.target = target
        self.size = size

    def facts(self) -> tuple[object, ...]:
        """Everything in it, as a tuple that is equal for equal relocations."""
        return (self.index, self.kind, self.name, self.offset, self.target, self.size)

    def __repr__(self) -> str:
        return (
            f"Relocation(index={self.index}, kind={self.kind!r}, name={self.name!r}, offset={self.offset}, "
            f"target={self.target}, size={self.size})"
        )
