"""Values as JSON says them, and back to the same bytes.

`records.to_json` is for reading; here nothing is lost. A value whose plain form would not come back as the same bytes
(padding that is not zero, text with something behind its NUL, a not-a-number) is ``{"hex": "..."}``, and so are values
without a type.
"""

from __future__ import annotations

from pybpf.btf.composites import ArrayCodec, BytesCodec, CompositeCodec
from pybpf.btf.records import to_json
from pybpf.btf.scalars import FloatCodec, OpaqueCodec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.btf.scalars import Codec


def to_plain(codec: Codec | None, data: bytes) -> Any:
    """What `json.dumps` takes for the bytes of one value."""
    if codec is not None:
        plain = to_json(codec.decode(data))
        try:
            if from_plain(codec, plain) == data:
                return plain
        except (TypeError, ValueError, OverflowError):
            pass
    return {"hex": data.hex()}


def from_plain(codec: Codec | None, plain: Any, where: str = "") -> bytes:
    """The bytes of a value, of what `json.loads` gave. Raises TypeError, ValueError, OverflowError."""
    if isinstance(plain, dict) and list(plain) == ["hex"]:
        data = bytes.fromhex(plain["hex"])
        if codec is not None and len(data) != codec.size:
            raise ValueError(f"{where or codec.c_name}: {len(data)} bytes, not {codec.size}")
        return data
    if codec is None:
        raise TypeError(f"{where or 'the value'} has no type: it is written as {{'hex': ...}}, not {plain!r}")
    return codec.encode(_value(codec, plain), where)


def convert(old: Codec, new: Codec, data: bytes, where: str) -> bytes:
    """The bytes of a value of one type as one of another, by the names of the fields.

    Fields that only the new type has are zero. Raises TypeError, ValueError, OverflowError.
    """
    return new.encode(_value(new, to_json(old.decode(data))), where)


def _value(codec: Codec, plain: Any) -> Any:
    """The value that a codec encodes."""
    if isinstance(codec, BytesCodec | OpaqueCodec) and isinstance(plain, str):
        return bytes.fromhex(plain)
    if isinstance(codec, FloatCodec) and isinstance(plain, str):
        return float(plain)
    if isinstance(codec, ArrayCodec) and isinstance(plain, list):
        return [_value(codec.element, item) for item in plain]
    if isinstance(codec, CompositeCodec) and isinstance(plain, dict):
        by_name = {name: field.codec for name, field in zip(codec.names, codec.fields, strict=True)}
        return {name: _value(by_name[name], item) if name in by_name else item for name, item in plain.items()}
    return plain
