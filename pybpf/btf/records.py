"""The Python faces of C structs and unions, and their form for JSON.

Rules of this file:

* A struct is a `Record`: an immutable tuple with attributes. It iterates, compares, hashes and pickles as a tuple does.
* A union, and a struct with an anonymous union inside, is an `Overlay`: an immutable object that keeps the bytes and
  decodes a member when it is asked for.
* A C name that Python cannot use as an attribute is changed by `field_name()`: keywords get a trailing underscore
  (``from`` is ``from_``), other characters become underscores, a leading digit gets an underscore before it.
* A field that is named like a method (``to_dict``, ``count``) hides the method; `to_dict(value)` of this module
  always works.
"""

from __future__ import annotations

import keyword

try:
    from _collections import _tuplegetter as tuple_getter  # type: ignore[import-not-found]
except ImportError:  # interpreters other than CPython
    from operator import itemgetter

    def tuple_getter(index: int, doc: str) -> property:
        """A read-only attribute that gives one item of a tuple."""
        return property(itemgetter(index), doc=doc)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    _Tuple = tuple[Any, ...]
else:
    _Tuple = tuple

_RESERVED = frozenset({"_fields", "_data", "_asdict", "_replace"})


def field_name(name: str) -> str:
    """The attribute name of a C member: ``pid`` stays, ``class`` gives ``class_``, ``0`` gives ``_0``."""
    if not name.isidentifier():
        name = "".join(letter if letter.isalnum() or letter == "_" else "_" for letter in name)
        if not name.isidentifier():
            name = f"_{name}"
    is_dunder = name.startswith("__") and name.endswith("__")
    if keyword.iskeyword(name) or name in _RESERVED or is_dunder:
        name += "_"
    return name


def field_names(names: Iterable[str]) -> tuple[str, ...]:
    """`field_name()` of each, made unique: a later one that collides gets trailing underscores, from 8 on a number."""
    seen: dict[str, None] = {}
    collisions: dict[str, int] = {}
    for name in names:
        plain = attribute = field_name(name)
        number = collisions.get(plain, 0)
        while attribute in seen:
            number += 1
            attribute = plain + ("_" * number if number < 8 else f"_{number}")
        collisions[plain] = number
        seen[attribute] = None
    return tuple(seen)


class Record(_Tuple):
    """One C struct as an immutable value: ``event.pid``, ``pid, comm = event``, ``event == (1, "bash")``.

    Each struct type has its own subclass; `_fields` names its attributes in order.
    """

    __slots__ = ()
    _fields: tuple[str, ...] = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __repr__(self) -> str:
        return _show(self)

    def to_dict(self) -> dict[str, Any]:
        """Field name to value; nested records become dicts too."""
        return to_dict(self)

    _asdict = to_dict

    def _replace(self, **changes: object) -> Record:
        """A copy with some fields changed. Raises ValueError for a name that is no field."""
        values = dict(zip(self._fields, self, strict=True))
        _refuse_unknown(self, changes)
        values.update(changes)
        return tuple.__new__(type(self), values.values())

    def __reduce__(self) -> tuple[object, ...]:
        return (restore, (type(self).__name__, self._fields, tuple(self)))


def _record_hash(record: Record) -> int:
    return hash(freeze(tuple(record)))


def make_record_class(name: str, fields: tuple[str, ...], hashable: bool = True) -> type[Record]:
    """A new `Record` subclass. `hashable` is false when a field may hold a list: then the hash looks into it."""
    body: dict[str, object] = {"__slots__": (), "_fields": fields, "__module__": __name__}
    if not hashable:
        body["__hash__"] = _record_hash
    for index, field in enumerate(fields):
        body[field] = tuple_getter(index, "")
    return type(name, (Record,), body)


_restored: dict[tuple[str, tuple[str, ...]], type[Record]] = {}
_MAX_RESTORED = 256


def restore(name: str, fields: tuple[str, ...], values: Iterable[object]) -> Record:
    """A record from its pickled parts."""
    found = _restored.get((name, fields))
    if found is None:
        if len(_restored) >= _MAX_RESTORED:
            _restored.clear()
        found = _restored[name, fields] = make_record_class(name, fields, hashable=False)
    return tuple.__new__(found, values)


class Overlay:
    """A union, or a struct with an anonymous union inside: the members share bytes.

    Attributes decode from the same bytes when they are read; ``bytes(value)`` gives those. Iteration, comparison
    and hash go over the members' values in order. A pickled one comes back as a `Record` of its members, and equals it.
    """

    __slots__ = ("_data",)
    _fields: tuple[str, ...] = ()
    _data: bytes

    def __init__(self, data: bytes) -> None:
        self._data = data

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __bytes__(self) -> bytes:
        return self._data

    def __iter__(self) -> Iterator[Any]:
        return (getattr(self, name) for name in self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Overlay | Record) or other._fields != self._fields:
            return NotImplemented
        return (type(other) is type(self) and self._data == other._data) or tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(freeze(tuple(self)))

    def __repr__(self) -> str:
        return _show(self)

    def to_dict(self) -> dict[str, Any]:
        """Field name to value; nested records become dicts too."""
        return to_dict(self)

    _asdict = to_dict

    def __reduce__(self) -> tuple[object, ...]:
        return (restore, (type(self).__name__, self._fields, tuple(self)))


def make_overlay_class(name: str, getters: Mapping[str, Callable[[Any], object]]) -> type[Overlay]:
    """A new `Overlay` subclass; each getter takes the overlay and gives the member's value."""
    body: dict[str, object] = {"__slots__": (), "_fields": tuple(getters), "__module__": __name__}
    for field, getter in getters.items():
        body[field] = property(getter)
    return type(name, (Overlay,), body)


def _refuse_unknown(record: Record | Overlay, names: Iterable[str]) -> None:
    for name in names:
        if name not in record._fields:
            raise ValueError(f"{type(record).__name__} has no field {name!r} (it has {', '.join(record._fields)})")


def _show(record: Record | Overlay) -> str:
    shown = (f"{name}={_show_value(value)}" for name, value in zip(record._fields, record, strict=True))
    return f"{type(record).__name__}({', '.join(shown)})"


def _show_value(value: object) -> str:
    name = enum_member_name(value)
    return repr(value) if name is None else name


def enum_member_name(value: object) -> str | None:
    """The name of an enum member, None for anything else. Does not import enum."""
    if isinstance(value, int) and type(value) is not int and type(value) is not bool:
        name = getattr(value, "name", None)
        return name if isinstance(name, str) else None
    return None


def freeze(value: object) -> object:
    """The value with lists turned into tuples, so that it can be hashed."""
    if isinstance(value, list):
        return tuple(freeze(item) for item in value)
    if type(value) is tuple:
        return tuple(freeze(item) for item in value)
    return value


def to_dict(record: Record | Overlay) -> dict[str, Any]:
    """Field name to value of a record; nested records become dicts too."""
    return {name: _plain(value) for name, value in zip(record._fields, record, strict=True)}


def _plain(value: object) -> object:
    if isinstance(value, Record | Overlay):
        return to_dict(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def to_json(value: object) -> object:
    """What `json.dumps` takes for a decoded value.

    Records become objects, lists and tuples arrays, bytes hexadecimal strings, enum members their names,
    floats that JSON cannot say (infinities, not-a-number) strings. Numbers, strings, booleans and None stay.
    Dict keys become strings: names and numbers as they are, records as compact JSON text.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        name = enum_member_name(value)
        return int(value) if name is None else name
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, Record | Overlay):
        return {name: to_json(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, bytes | bytearray | memoryview):
        return value.hex()
    if isinstance(value, dict):
        return {_json_key(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return str(value)


def _json_key(key: object) -> str:
    plain = to_json(key)
    if isinstance(plain, str):
        return plain
    import json

    return json.dumps(plain, separators=(",", ":"))
