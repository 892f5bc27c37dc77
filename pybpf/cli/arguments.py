"""What arguments of several commands are checked by."""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.spec import ObjectSpec


def positive(text: str) -> int:
    """A whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return number


def pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{option} {text}: it takes NAME=VALUE")
    return name, value


def read_text(path: str) -> str:
    """What is in a file of text; "-" is the standard input. Raises OSError, ObjectError."""
    from pybpf.errors import ObjectError

    try:
        if path == "-":
            return sys.stdin.read()
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ObjectError(f"{path}: no text: byte {byte:#04x} at offset {error.start} is not UTF-8") from None


def set_globals(spec: ObjectSpec, settings: list[str]) -> None:
    """What --set says. Raises ValueError."""
    for text in settings:
        name, value = pair("--set", text)
        try:
            spec.globals.parse(name, value)
        except KeyError as error:
            raise ValueError(f"--set {text}: {error.args[0]}") from None
        except (ValueError, OverflowError, TypeError) as error:
            raise ValueError(f"--set {text}: {error}") from None
