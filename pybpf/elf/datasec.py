"""DATASEC: what BTF says about the variables of a section, corrected by the ELF file, and made fit for the kernel.

Rules of this module:

* The compiler leaves the size of a section and the offsets of its global variables at 0: the section header and the
  symbols have them. Offsets of static variables, and everything in statically linked objects, are right already.
* A hidden variable is static for everyone outside the object.
* The reader's BTF is never changed: `DatasecLayout` holds what is right, and `kernel_btf()` writes an edited copy whose
  type ids are the same.

Source: tools/lib/bpf/libbpf.c, btf_fixup_datasec(), bpf_object__collect_externs(), bpf_object__sanitize_btf().
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.btf.reader import BTF


class DatasecLayout:
    """The variables of one section.

    Attributes:
        type_id: of the DATASEC.
        name: of the section.
        size: bytes.
        entries: (id of the VAR, offset, size), sorted by offset.
        hidden: ids of VARs that BTF calls global but whose symbol is hidden.
        has_global: whether any variable can be seen from outside: then the map can be mapped into memory.
    """

    __slots__ = ("_btf", "entries", "grown", "has_global", "hidden", "name", "size", "type_id")

    def __init__(self, btf: BTF, type_id: int, name: str, size: int) -> None:
        self._btf = btf
        self.type_id = type_id
        self.name = name
        self.size = size
        self.entries: list[tuple[int, int, int]] = []
        self.hidden: set[int] = set()
        self.has_global = False
        self.grown: tuple[int, int, int] | None = None

    def enlarge(self, size: int) -> bool:
        """Let the last variable grow so that the section has `size` bytes; False if it is not an array that can.

        The new number of its elements is kept in `grown` as (id of the VAR, id of its ARRAY type, elements).
        """
        from pybpf.btf.kinds import Array, Var

        if not self.entries:
            return False
        var_id, offset, _ = self.entries[-1]
        var = self._btf.type(var_id)
        if not isinstance(var, Var):
            return False
        array = self._btf.resolve(var.type_id)
        if not isinstance(array, Array):
            return False
        element = self._btf.size_of(array.type_id)
        if element == 0 or (size - offset) % element:
            return False
        self.grown = (var_id, array.id, (size - offset) // element)
        self.entries[-1] = (var_id, offset, size - offset)
        self.size = size
        return True
