"""From codecs back to BTF: as little of it as says how these values lie in memory.

For files that have to be read without the object or the kernel that the types came from. What comes back from
`codec()` of such BTF decodes and encodes alike. Typedefs of numbers are numbers of that name; pointers point to nothing
in particular.
"""

from __future__ import annotations

from pybpf.btf.composites import ArrayCodec, BytesCodec, CompositeCodec, FlexibleCodec, OverlayCodec, TextCodec
from pybpf.btf.kinds import INT_BOOL, INT_SIGNED, Member
from pybpf.btf.scalars import BitfieldCodec, BoolCodec, EnumCodec, FloatCodec, IntCodec, OpaqueCodec
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.btf.scalars import Codec


def describe(*codecs: Codec | None, byte_order: str) -> tuple[bytes, list[int]]:
    """BTF with these types, and the id of each; 0 for None. The same types give the same bytes.

    Raises:
        BTFError: a codec is of a kind that no type stands for.
    """
    describer = _Describer(BTFBuilder(byte_order))
    ids = [0 if codec is None else describer.add(codec) for codec in codecs]
    return describer.builder.to_bytes(), ids


class _Describer:
    def __init__(self, builder: BTFBuilder) -> None:
        self.builder = builder
        self._made: dict[object, int] = {}

    def _once(self, key: object, make: Callable[[], int]) -> int:
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = make()
        return found

    def _int(self, name: str, size: int, encoding: int = 0) -> int:
        return self._once((name, size, encoding), lambda: self.builder.add_int(name, size, encoding=encoding))

    def add(self, codec: Codec) -> int:
        """The id of the codec's type."""
        builder, name = self.builder, codec.c_name
        if isinstance(codec, CompositeCodec):
            return self._once(id(codec), lambda: self._composite(codec))
        if isinstance(codec, TextCodec):
            return self._array(self._int("char", 1, INT_SIGNED), codec.size)
        if isinstance(codec, BytesCodec):
            return self._array(self._int("unsigned char", 1), codec.size)
        if isinstance(codec, FlexibleCodec):
            return self._flexible(codec)
        if isinstance(codec, ArrayCodec):
            return self._array(self.add(codec.element), codec.count)
        if isinstance(codec, EnumCodec):
            members = codec.members
            add = builder.add_enum64 if codec.size == 8 else builder.add_enum
            word, _, label = name.partition(" ")

            def make() -> int:
                made = add(label, codec.size, codec.is_signed, list(members.declared))
                return made if word == "enum" else builder.add_typedef(word, made)

            return self._once(id(members), make)
        if isinstance(codec, BoolCodec):
            return self._int(name, codec.size, INT_BOOL)
        if isinstance(codec, IntCodec):
            if name.endswith("*"):
                return self._once("*", lambda: builder.add_ptr(0))
            return self._int(name, codec.size, INT_SIGNED if codec.is_signed else 0)
        if isinstance(codec, FloatCodec | OpaqueCodec):
            return self._once((name, codec.size), lambda: builder.add_float(name, codec.size))
        raise BTFError(f"{codec!r} cannot be described")

    def _array(self, element: int, count: int) -> int:
        index = self._int("unsigned int", 4)
        return self._once(("[]", element, count), lambda: self.builder.add_array(element, index, count))

    def _flexible(self, codec: FlexibleCodec) -> int:
        if issubclass(codec.shape, TextCodec):
            return self._array(self._int("char", 1, INT_SIGNED), 0)
        if issubclass(codec.shape, BytesCodec):
            return self._array(self._int("unsigned char", 1), 0)
        return self._array(self.add(codec.element), 0)

    def _composite(self, codec: CompositeCodec) -> int:
        members: list[Member] = []
        has_bitfields = any(field.is_bitfield for field in codec.fields)
        for field in codec.fields:
            inner = field.codec
            bits = 0
            if isinstance(inner, BitfieldCodec):
                inner, bits = inner.inner, field.bits
            members.append(Member(field.name, self.add(inner), field.first, bits))
        starts_at_0 = not has_bitfields and all(field.first == 0 for field in codec.fields)
        word, _, name = codec.c_name.partition(" ")
        is_union = isinstance(codec, OverlayCodec) and starts_at_0 and word != "struct"
        add = self.builder.add_union if is_union else self.builder.add_struct
        made = add(name, codec.size, members)
        return made if word in ("struct", "union") else self.builder.add_typedef(word, made)
