"""Types that people give for keys and values of new maps: C text, Python types, dataclasses, codecs, numbers of bytes.

    "u32", "struct pair { u32 a; u32 b; }"      C, see `pybpf.btf.declarations`
    int, float, bool                            s64, double, _Bool
    Annotated[int, "u16"]                       what the text says; `u8` to `s64` of this module are such types
    an IntEnum                                  an enum of its members
    a dataclass or NamedTuple                   a struct of its fields; values come as objects of it, made by its
                                                constructor; keys, to be those of a dict, have to be hashable
    a codec                                     as it is, without type information for the kernel
    16                                          so many bytes

Rules of this module:

* A field's annotation may be any of these but a codec or a number. As text it is taken for Python first, so ``int``
  is Python's int, 64 bits wide, while ``"u32"`` and ``"char[16]"`` are C.
* All types of one map lie in one `Declarations`, so that the kernel gets one BTF object.
"""

from __future__ import annotations

from typing import Annotated

from pybpf.btf.composites import ArrayCodec, Field, StructCodec
from pybpf.btf.declarations import Declarations, Frame
from pybpf.btf.scalars import Codec
from pybpf.errors import BTFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pybpf.btf.composites import FlexibleCodec
    from pybpf.btf.declarations import CType
    from pybpf.btf.scalars import Source

    Declared = str | type | Codec | int

u8, u16, u32, u64 = Annotated[int, "u8"], Annotated[int, "u16"], Annotated[int, "u32"], Annotated[int, "u64"]
s8, s16, s32, s64 = Annotated[int, "s8"], Annotated[int, "s16"], Annotated[int, "s32"], Annotated[int, "s64"]
f32, f64 = Annotated[float, "float"], Annotated[float, "double"]

_PLAIN = {int: "s64", float: "double", bool: "_Bool"}
_NAMES = {"int": "s64", "float": "double", "bool": "_Bool"}


def codec_of(declared: Declared) -> Codec:
    """The codec of one type. Raises BTFError; TypeError for a number of bytes, which is no type."""
    if isinstance(declared, Codec):
        return declared
    if isinstance(declared, int):
        raise TypeError(f"{declared} is a number of bytes, and no type")
    types = DeclaredTypes()
    return types.codec(types.ctype(declared))


class ObjectCodec(StructCodec):
    """A struct whose values are objects of a Python class."""

    __slots__ = ("cls", "make")

    def __init__(
        self,
        size: int,
        label: str,
        c_name: str,
        byte_order: str,
        fields: Sequence[Field],
        tail: FlexibleCodec | None = None,
        cls: type = tuple,
    ) -> None:
        super().__init__(size, label, c_name, byte_order, fields, tail)
        self.cls = cls
        self.make = _maker(cls, [field.name for field in fields])

    def piece(self, source: Source) -> tuple[str, str]:
        codes, expression = super().piece(source)
        return codes, f"{source.constant(self.make)}({expression})"

    def _values(self, value: Any, where: str) -> Sequence[Any]:
        if isinstance(value, self.cls):
            value = tuple(getattr(value, field.name) for field in self.fields)
        return super()._values(value, where)


class DeclaredTypes:
    """The types of one map.

    Attributes:
        types: the declarations.
        classes: id of a struct -> the class whose objects its values are.
    """

    def __init__(self) -> None:
        self.types = Declarations()
        self.classes: dict[int, type] = {}
        self._made: dict[type, CType] = {}
        self._begun: set[type] = set()

    def ctype(self, declared: Any) -> CType:
        """The C type. Raises BTFError for what is none."""
        if isinstance(declared, str):
            return self.types.parse(declared)
        if isinstance(declared, type) and declared in _PLAIN:
            return self.types.parse(_PLAIN[declared])
        texts = [item for item in getattr(declared, "__metadata__", ()) if isinstance(item, str)]
        if texts:
            return self.types.parse(texts[0])
        if isinstance(declared, type):
            found = self._made.get(declared)
            if found is None:
                if declared in self._begun:
                    raise BTFError(f"{declared.__name__} contains itself")
                self._begun.add(declared)
                found = self._made[declared] = self._of_class(declared)
            return found
        raise BTFError(f"{declared!r} is no type of a key or value (a C declaration, a dataclass, an annotated type)")

    def codec(self, ctype: CType) -> Codec:
        """The codec of a type; structs of classes give their objects."""
        return self._objects(self.types.codec(ctype.id), {f"struct {cls.__name__}": cls for cls in self._made})

    def _of_class(self, cls: type) -> CType:
        from enum import IntEnum

        if issubclass(cls, IntEnum):
            if not len(cls):
                raise BTFError(f"{cls.__name__} is an enum without members")
            return self.types.enumeration(cls.__name__, [(item.name, int(item)) for item in cls])
        annotations = _annotations(cls)
        frame = Frame()
        for name, annotation in annotations:
            try:
                frame.add(name, self._of_annotation(cls, annotation))
            except BTFError as error:
                raise BTFError(f"{cls.__name__}.{name}: {error}") from None
        return self.types.composite(cls.__name__, frame)

    def _of_annotation(self, cls: type, annotation: Any) -> CType:
        if not isinstance(annotation, str):
            return self.ctype(annotation)
        text = annotation.strip("'\" ")
        if text in _NAMES:
            return self.types.parse(_NAMES[text])
        try:
            return self.types.parse(text)
        except BTFError as error:
            import sys

            try:
                found = eval(text, dict(vars(sys.modules[cls.__module__])))  # what typing.get_type_hints() does
            except Exception:
                raise error from None
            return self.ctype(found)

    def _objects(self, codec: Codec, classes: dict[str, type]) -> Codec:
        """The codec with objects of their classes for structs that have one, inside too."""
        if isinstance(codec, ArrayCodec):
            element = self._objects(codec.element, classes)
            return codec if element is codec.element else ArrayCodec(element, codec.count, codec.c_name)
        if not isinstance(codec, StructCodec) or codec.c_name not in classes:
            return codec
        fields = [
            Field(field.name, self._objects(field.codec, classes), field.first, field.bits) for field in codec.fields
        ]
        cls = classes[codec.c_name]
        return ObjectCodec(codec.size, codec.label, codec.c_name, codec.byte_order, fields, codec.tail, cls)


def _annotations(cls: type) -> list[tuple[str, Any]]:
    """The fields of a dataclass or NamedTuple, in order. Raises BTFError for another class."""
    fields = getattr(cls, "__dataclass_fields__", None)
    if fields is not None:
        from dataclasses import fields as ordered

        return [(field.name, field.type) for field in ordered(cls)]
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        hints = getattr(cls, "__annotations__", {})
        return [(name, _unwrapped(hints[name])) for name in cls._fields if name in hints]
    raise BTFError(f"{cls.__name__} is neither a dataclass nor a NamedTuple")


def _maker(cls: type, names: list[str]) -> Callable[[Any], Any]:
    """What makes an object of the values of its fields, by position if it takes them so, else by name.

    Raises:
        BTFError: the class takes a field not at all (``init=False``), or wants more (an ``InitVar`` without a default).
    """
    if not issubclass(cls, tuple):
        from inspect import signature

        call = signature(cls)
        try:
            is_positional = call.bind(*names).arguments == dict(zip(names, names, strict=True))
        except TypeError:
            is_positional = False
        if not is_positional:
            try:
                call.bind(**dict.fromkeys(names))
            except TypeError as error:
                raise BTFError(f"{cls.__name__}: no object can be made of its fields: {error}") from None
            return lambda values: cls(**dict(zip(names, values, strict=True)))
    return lambda values: cls(*values)


def _unwrapped(annotation: Any) -> Any:
    """The text of a ForwardRef, which NamedTuple makes of a text."""
    return getattr(annotation, "__forward_arg__", annotation)
