"""Names of bpf(2)'s numbers: ``"ringbuf"``, ``"BPF_MAP_TYPE_RINGBUF"`` and `MapType.RINGBUF` are the same thing."""

from __future__ import annotations

from pybpf import constants as c

PREFIXES = {
    "map type": ("BPF_MAP_TYPE_",),
    "program type": ("BPF_PROG_TYPE_",),
    "helper": ("BPF_FUNC_",),
    "link type": ("BPF_LINK_TYPE_",),
    "command": ("BPF_",),
    "attach type": ("BPF_",),
}


def known(kind: str) -> dict[str, int]:
    """Name without prefix, in lower case -> number, of everything of this kind that this version of pybpf knows.

    Args:
        kind: a key of `PREFIXES`.
    """
    from pybpf import abi

    enums = {
        "map type": abi.MapType,
        "program type": abi.ProgramType,
        "link type": abi.LinkType,
        "command": abi.Command,
        "attach type": abi.AttachType,
    }
    if kind == "helper":
        prefix = PREFIXES[kind][0]
        found = {name[len(prefix) :].lower(): value for name, value in vars(c).items() if name.startswith(prefix)}
    else:
        found = {name.lower(): member.value for name, member in enums[kind].__members__.items()}
    return {name: number for name, number in found.items() if name != "unspec"}


def canonical(kind: str) -> dict[int, str]:
    """Number -> the first name of it; aliases are left out."""
    names: dict[int, str] = {}
    for name, number in known(kind).items():
        names.setdefault(number, name)
    return names


def number_of(kind: str, name: int | str) -> int:
    """The number behind a name, an enum member or a number.

    Raises:
        ValueError: pybpf knows no such name; the message proposes others.
    """
    if isinstance(name, int):
        return int(name)
    plain = name.upper()
    names = known(kind)
    for prefix in (*PREFIXES[kind], "BPF_"):
        number = names.get(plain.removeprefix(prefix).lower())
        if number is not None:
            return number
    from difflib import get_close_matches

    near = get_close_matches(name.lower(), names)
    raise ValueError(f"no {kind} is called {name!r}" + (f": did you mean {' or '.join(near)}?" if near else ""))
