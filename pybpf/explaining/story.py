"""A call told: plain values, for text, JSON and pages."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class FieldStory:
    """One field of a call.

    Attributes:
        name: as the kernel's header has it.
        value: the number, name or bytes that stand there.
        text: the value in words: ``BPF_MAP_TYPE_RINGBUF``, ``7: map "events" (ringbuf)``.
        meaning: what the field is for.
        since: the kernel that brought the field or, for a constant, the constant; "" when it is as old as the command.
        is_output: the kernel wrote it.
    """

    __slots__ = ("is_output", "meaning", "name", "since", "text", "value")

    def __init__(
        self, name: str, value: int | str | bytes, text: str, meaning: str, since: str = "", is_output: bool = False
    ) -> None:
        self.name = name
        self.value = value
        self.text = text
        self.meaning = meaning
        self.since = since
        self.is_output = is_output

    def to_dict(self) -> dict[str, Any]:
        value = self.value.hex() if isinstance(self.value, bytes) else self.value
        found: dict[str, Any] = {"name": self.name, "value": value, "text": self.text, "meaning": self.meaning}
        if self.since:
            found["since"] = self.since
        if self.is_output:
            found["output"] = True
        return found

    def __repr__(self) -> str:
        return f"<{self.name} = {self.text}>"


_SUBJECTS = ("prog_fd", "map_fd", "link_fd", "bpf_fd", "attach_bpf_fd", "fd")
"""Descriptors of what a call is about, rather than of what it uses."""


class CallStory:
    """One call.

    Attributes:
        number: counted from 1.
        name: "bpf", "perf_event_open", "ioctl" ...
        command: "BPF_MAP_CREATE"; "" for calls that have none.
        purpose: what the call is for, in words.
        since: the kernel that brought the command; "" when that is not known.
        size: bytes of the struct that was handed over.
        fields: those that say something.
        result: what came back; -1 when it failed.
        made: what the result is, in words, where it is a descriptor.
        errno, errno_name, errno_text: why it failed; 0 and "" when it did not.
        microseconds: how long the kernel took.
        answered: the kernel was not asked: something else answered (a dry run).
        instructions: the program's disassembly, if it was asked for.
        log: what the kernel wrote into the log, if anything.
    """

    __slots__ = (
        "answered",
        "command",
        "errno",
        "errno_name",
        "errno_text",
        "fields",
        "instructions",
        "log",
        "made",
        "microseconds",
        "name",
        "number",
        "purpose",
        "result",
        "since",
        "size",
    )

    def __init__(self, number: int, name: str, command: str) -> None:
        self.number = number
        self.name = name
        self.command = command
        self.purpose = self.since = ""
        self.size = 0
        self.fields: list[FieldStory] = []
        self.result = 0
        self.made = ""
        self.errno = 0
        self.errno_name = self.errno_text = ""
        self.microseconds = 0.0
        self.answered = False
        self.instructions: list[str] = []
        self.log = ""

    @property
    def title(self) -> str:
        """``bpf(BPF_MAP_CREATE)``, ``perf_event_open()``."""
        return f"{self.name}({self.command})"

    @property
    def subject(self) -> str:
        """What the call is about, where a descriptor or a name says so: ``map "events" (ringbuf)``; ""."""
        for one in self.fields:
            number, colon, what = one.text.partition(": ")
            if colon and one.name in _SUBJECTS and number.isdigit():
                return what
            if one.name in ("map_name", "prog_name") and not self.made:
                return one.text
        return ""

    def field(self, name: str) -> FieldStory:
        """The field of a name. Raises KeyError when it says nothing here."""
        for one in self.fields:
            if one.name == name:
                return one
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        found: dict[str, Any] = {
            "number": self.number,
            "call": self.name,
            "command": self.command,
            "purpose": self.purpose,
            "fields": [one.to_dict() for one in self.fields],
            "result": self.result,
            "microseconds": round(self.microseconds, 1),
        }
        if self.errno:
            found["errno"], found["errno_name"], found["errno_text"] = self.errno, self.errno_name, self.errno_text
        for name in ("since", "size", "made", "answered", "instructions", "log"):
            if getattr(self, name):
                found[name] = getattr(self, name)
        return found

    def __repr__(self) -> str:
        outcome = f"= {self.result}" if not self.errno else f"= -1 {self.errno_name}"
        return f"<CallStory {self.number}: {self.title} {outcome}>"
