"""The patterns of multi-probes: ``*`` stands for any run of characters, ``?`` for one. Nothing else is special."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def is_pattern(text: str) -> bool:
    """True when the text has a wildcard."""
    return "*" in text or "?" in text


def matcher(pattern: str) -> Callable[[str], bool]:
    """A function that says whether a whole name fits the pattern."""
    import re

    expression = "".join({"*": ".*", "?": "."}.get(character) or re.escape(character) for character in pattern)
    match = re.compile(expression, re.DOTALL).fullmatch
    return lambda name: match(name) is not None
