"""Decoded types as numpy sees them: the dtype of a codec.

Rules of this file:

* Pure; numpy is imported when a dtype is asked for.
* The names of a dtype are the attributes of the record. A union's members overlap in it, as they do in C.
* What numpy has no type for is left out (bitfields, the array without a length at the end of a struct) or is
  ``V``, bytes without a meaning (integers of 3 or 16 bytes, long double).

What becomes what:

    int, enum, pointer      ``u1`` to ``u8``, ``i1`` to ``i8``, in the byte order of the type information
    _Bool                   ``?``
    float, double           ``f4``, ``f8``
    char[N]                 ``SN``
    unsigned char[N]        an array of N ``u1``
    other arrays            an array of the element's dtype
    struct, union           a structured dtype of the same size
"""

from __future__ import annotations

from pybpf.btf.composites import ArrayCodec, BytesCodec, CompositeCodec, FlexibleCodec, TextCodec
from pybpf.btf.scalars import FLOAT_CODES, BitfieldCodec, BoolCodec, FloatCodec, IntCodec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.btf.scalars import Codec


def numpy_dtype(codec: Codec) -> Any:
    """The numpy dtype of a codec's values, of the same size. It is made once.

    Raises:
        ImportError: numpy is not installed (the extra ``pybpf[numpy]``).
    """
    if codec.dtype is None:
        from numpy import dtype

        codec.dtype = dtype(_format(codec))
    return codec.dtype


def _structure(codec: CompositeCodec) -> dict[str, Any]:
    names: list[str] = []
    formats: list[Any] = []
    offsets: list[int] = []
    for name, field in zip(codec.names, codec.fields, strict=True):
        if isinstance(field.codec, BitfieldCodec | FlexibleCodec) or not field.codec.size:
            continue
        names.append(name)
        formats.append(_format(field.codec))
        offsets.append(field.offset)
    return {"names": names, "formats": formats, "offsets": offsets, "itemsize": codec.size}


def _format(codec: Codec) -> Any:
    order = "<" if codec.byte_order == "little" else ">"
    if isinstance(codec, CompositeCodec):
        return _structure(codec)
    if isinstance(codec, ArrayCodec):
        return (_format(codec.element), (codec.count,))
    if isinstance(codec, BytesCodec):
        return ("u1", (codec.size,))
    if isinstance(codec, TextCodec):
        return f"S{codec.size}"
    if isinstance(codec, BoolCodec) and codec.size == 1:
        return "?"
    if isinstance(codec, FloatCodec) and codec.size in FLOAT_CODES:
        return f"{order}f{codec.size}"
    if isinstance(codec, IntCodec) and len(codec.code) == 1:
        return f"{order}{'i' if codec.is_signed else 'u'}{codec.size}"
    return f"V{codec.size}"
