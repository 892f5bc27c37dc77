"""Maps whose only value is a struct of function pointers that the kernel will call."""

from __future__ import annotations

from pybpf.constants import BPF_F_LINK, BPF_MAP_TYPE_STRUCT_OPS
from pybpf.maps.face import Face, NumberFace
from pybpf.maps.mapping import MappingMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from pybpf.links import Link


class StructOpsMap(MappingMap):
    """BPF_MAP_TYPE_STRUCT_OPS (Linux 5.6): the value at key 0 is the kernel's ``struct bpf_struct_ops_...``.

    Reading it gives the ids of the programs where the function pointers are, and in `common` how often it is used and
    whether it is registered. `attach` registers it; writing key 0 by hand does the same for maps without BPF_F_LINK.
    """

    __slots__ = ("_prepared",)
    default_type = BPF_MAP_TYPE_STRUCT_OPS
    is_restorable = False
    default_key_size = 4

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._prepared = b""

    def __copy__(self) -> Self:
        made = super().__copy__()
        made._prepared = self._prepared
        return made

    def _key_face(self) -> Face:
        return NumberFace(self._where("key"))

    @property
    def needs_link(self) -> bool:
        """Whether it is registered by a link (BPF_F_LINK, Linux 6.4), and not by writing its value."""
        return bool(self.flags & BPF_F_LINK)

    @property
    def prepared(self) -> bytes:
        """The value that attaching writes, with descriptors of programs; empty for maps that were opened."""
        return self._prepared

    def prepare(self, value: bytes) -> None:
        """Set the value that attaching writes."""
        self._prepared = value

    def attach(self) -> Link:
        """Register it with the kernel; see `pybpf.links.attach_struct_ops`."""
        from pybpf.links.struct_ops import attach_struct_ops

        return attach_struct_ops(self)
