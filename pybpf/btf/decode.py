"""One type out of raw words: a decoder for each kind, in one table.

Rules of this file: the walk over the section has already proved that the type lies within it, so a decoder only reads.
"""

from __future__ import annotations

from pybpf.btf import kinds
from pybpf.btf.kinds import DatasecEntry, Param
from pybpf.btf.layout import TYPE_WORDS, info_kind, info_vlen, numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pybpf.btf.layout import Words
    from pybpf.btf.reader import BTF

    Decoder = Callable[[BTF, int, str, Words, int], kinds.Type]

_SIGN_32 = 1 << 31
_SIGN_64 = 1 << 63


def decode(btf: BTF, id: int, words: Words, position: int, size: int) -> kinds.Type:
    """The type at a word index, which takes `size` words. Raises BTFError for a bad string offset."""
    name = btf.string(words[position])
    kind = info_kind(words[position + 1])
    if kind <= kinds.KIND_MAX:
        return _DECODERS[kind](btf, id, name, words, position)
    return kinds.Unknown(btf, id, name, kind, numbers(words, position, position + size))


def _columns(words: Words, position: int, width: int) -> list[tuple[int, ...]]:
    """The vlen elements of a type as `width` columns."""
    start = position + TYPE_WORDS
    flat = numbers(words, start, start + info_vlen(words[position + 1]) * width)
    return [flat[column::width] for column in range(width)]


def _kind_flag(words: Words, position: int) -> bool:
    return words[position + 1] >= 1 << 31


def _int(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.Int:
    data = words[position + 3]
    return kinds.Int(btf, id, name, words[position + 2], data & 0xFF, data >> 16 & 0xFF, data >> 24 & 0xF)


def _reference(cls: type[kinds.Reference]) -> Decoder:
    def decoder(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.Reference:
        return cls(btf, id, name, words[position + 2])

    return decoder


def _type_tag(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.TypeTag:
    return kinds.TypeTag(btf, id, name, words[position + 2], _kind_flag(words, position))


def _array(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.Array:
    return kinds.Array(btf, id, name, words[position + 3], words[position + 4], words[position + 5])


def _composite(cls: type[kinds.Composite]) -> Decoder:
    def decoder(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.Composite:
        start = position + TYPE_WORDS
        members = numbers(words, start, start + 3 * info_vlen(words[position + 1]))
        return cls(btf, id, name, words[position + 2], members, _kind_flag(words, position))

    return decoder


def _enum(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.Enum:
    names, stored = _columns(words, position, 2)
    signed = _kind_flag(words, position)
    read: Iterable[int] = [(one ^ _SIGN_32) - _SIGN_32 for one in stored] if signed else stored
    values = tuple(zip(btf.strings(names), read, strict=True))
    return kinds.Enum(btf, id, name, words[position + 2], signed, values)


def _enum64(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.Enum64:
    names, lows, highs = _columns(words, position, 3)
    read = [high << 32 | low for low, high in zip(lows, highs, strict=True)]
    signed = _kind_flag(words, position)
    if signed:
        read = [(one ^ _SIGN_64) - _SIGN_64 for one in read]
    values = tuple(zip(btf.strings(names), read, strict=True))
    return kinds.Enum64(btf, id, name, words[position + 2], signed, values)


def _fwd(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.Fwd:
    return kinds.Fwd(btf, id, name, _kind_flag(words, position))


def _func(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.Func:
    return kinds.Func(btf, id, name, words[position + 2], info_vlen(words[position + 1]))


def _func_proto(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.FuncProto:
    names, targets = _columns(words, position, 2)
    params = tuple(map(Param, btf.strings(names), targets))
    return kinds.FuncProto(btf, id, name, words[position + 2], params)


def _var(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.Var:
    return kinds.Var(btf, id, name, words[position + 2], words[position + 3])


def _datasec(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.Datasec:
    entries = tuple(map(DatasecEntry, *_columns(words, position, 3)))
    return kinds.Datasec(btf, id, name, words[position + 2], entries)


def _float(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.Float:
    return kinds.Float(btf, id, name, words[position + 2])


def _decl_tag(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.DeclTag:
    component = (words[position + 3] ^ _SIGN_32) - _SIGN_32
    return kinds.DeclTag(btf, id, name, words[position + 2], component, _kind_flag(words, position))


def _void(btf: BTF, id: int, name: str, words: Words, position: int) -> kinds.Void:
    return kinds.Void(btf, id, name)


_DECODERS: tuple[Decoder, ...] = (
    _void,
    _int,
    _reference(kinds.Ptr),
    _array,
    _composite(kinds.Struct),
    _composite(kinds.Union),
    _enum,
    _fwd,
    _reference(kinds.Typedef),
    _reference(kinds.Volatile),
    _reference(kinds.Const),
    _reference(kinds.Restrict),
    _func,
    _func_proto,
    _var,
    _datasec,
    _float,
    _decl_tag,
    _type_tag,
    _enum64,
)
