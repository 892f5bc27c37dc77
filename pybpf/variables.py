"""Globals: the global variables of an object file, by name, as Python values.

Rules of this module:

* A variable's value is part of the initial content of a data map (``.rodata``, ``.data``, ``.bss`` and their kin).
* Values are converted by the variable's BTF type, so that a wrong type or a number out of range is refused.
* The set of variables is the file's: none can be added or removed.
* A name that several static variables share gets its place appended: ``name@.bss+8``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from pybpf.btf.codec import Codec
    from pybpf.elf.data import Variable
    from pybpf.mapspec import MapSpec


def unknown_name(what: str, name: object, known: Iterable[str]) -> KeyError:
    """A KeyError that lists the known names nearest to a wrong one."""
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(str(name), names, n=3, cutoff=0.5)
    if near:
        return KeyError(f"no {what} {name!r}; did you mean {', '.join(near)}?")
    listed = ", ".join(sorted(names)[:12]) + (" ..." if len(names) > 12 else "")
    return KeyError(f"no {what} {name!r}; there are: {listed}" if names else f"no {what} {name!r}: there are none")


class Globals:
    """The global variables of an object file, as a mapping from name to initial value.

    >>> spec.globals["min_us"] = 5
    """

    __slots__ = ("_maps", "_variables")

    def __init__(self, variables: Mapping[str, Variable], maps: Mapping[str, MapSpec]) -> None:
        self._variables = variables
        self._maps = maps

    def _find(self, name: str) -> tuple[Variable, Codec, bytearray]:
        variable = self._variables.get(name)
        if variable is None:
            raise unknown_name("global variable", name, self._variables)
        from pybpf.btf.codec import codec

        owner = self._maps[variable.map]
        data = owner.data
        if data is None or owner.btf is None:
            raise ValueError(f"global variable {name!r}: map {variable.map!r} has no initial content")
        return variable, codec(owner.btf, variable.type_id), data

    def __getitem__(self, name: str) -> Any:
        """The value the variable will have when the object is loaded.

        Raises:
            KeyError: there is no such variable; the message lists similar names.
        """
        variable, codec, data = self._find(name)
        return codec.decode(data, variable.offset)

    def __setitem__(self, name: str, value: Any) -> None:
        """Set the value the variable will have when the object is loaded.

        Raises:
            KeyError: there is no such variable; the message lists similar names.
            TypeError: the value has the wrong type.
            ValueError, OverflowError: the value does not fit the variable's type.
        """
        variable, codec, data = self._find(name)
        codec.encode_into(data, variable.offset, value)

    def parse(self, name: str, text: str) -> None:
        """Set the initial value from text: a number, true or false, an enumerator, a string, JSON for what has parts.

        Raises:
            KeyError: there is no such variable; the message lists similar names.
            ValueError, OverflowError: the text says no value of the variable's type.
        """
        variable, codec, data = self._find(name)
        codec.encode_into(data, variable.offset, codec.parse(text))

    def __delitem__(self, name: str) -> None:
        raise TypeError("the variables of an object file cannot be removed")

    def __contains__(self, name: object) -> bool:
        return name in self._variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._variables.keys()

    def values(self) -> list[Any]:
        """The values, in the order of the names."""
        return [self[name] for name in self._variables]

    def items(self) -> list[tuple[str, Any]]:
        """Names and values."""
        return [(name, self[name]) for name in self._variables]

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or `default` if there is no such variable."""
        return self[name] if name in self._variables else default

    def update(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any) -> None:
        """Set several variables. All names are checked before the first one is set."""
        merged = {**dict(values), **more}
        for name in merged:
            if name not in self._variables:
                raise unknown_name("global variable", name, self._variables)
        for name, value in merged.items():
            self[name] = value

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (Globals, dict)):
            return dict(self.items()) == dict(other.items())
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # values can be set

    def __repr__(self) -> str:
        return f"<Globals {', '.join(self._variables) or 'none'}>"
