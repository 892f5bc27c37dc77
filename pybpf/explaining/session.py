"""`pybpf.explain()` and PYBPF_EXPLAIN: telling calls as they happen."""

from __future__ import annotations

import os
import sys
from io import FileIO, TextIOWrapper

from pybpf.explaining.dryrun import DryRun
from pybpf.explaining.teller import Teller
from pybpf.explaining.text import lines
from pybpf.syscall import add_observer, remove_observer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, Self, TextIO

    from pybpf.explaining.story import CallStory

    Format = Literal["text", "json", "html"]

ENDINGS: dict[str, Format] = {".html": "html", ".htm": "html", ".json": "json", ".jsonl": "json"}
"""Ending of a file's name -> the format that it is written in; others are text."""


class Explanation:
    """Tells every call into the kernel while it is open. A context manager.

    Attributes:
        calls: what was told so far, unless `keep` is false.
    """

    def __init__(
        self,
        to: str | os.PathLike[str] | TextIO | None = None,
        *,
        format: Format | None = None,
        instructions: bool = False,
        zeros: bool = False,
        dry_run: bool = False,
        keep: bool = True,
    ) -> None:
        """Prepare it; `start()` or ``with`` begins.

        Args:
            to: a path, or an open text file, or None for the standard error.
            format: "text", "json" (one object a line) or "html" (one page); by default what the path's ending says.
            instructions: with the disassembly of every program.
            zeros: with the fields that are 0, which the kernel takes for "not given".
            dry_run: let nothing reach the kernel: what would be sent is told, and the answers are invented.
            keep: keep the stories in `calls`.

        Raises:
            ValueError: there is no such format.
        """
        path = None if to is None or hasattr(to, "write") else os.fspath(to)
        ending = os.path.splitext(path)[1].lower() if path is not None else ""
        self._format: Format = format or ENDINGS.get(ending, "text")
        if self._format not in ("text", "json", "html"):
            raise ValueError(f"format {format!r}: it is text, json or html")
        self.calls: list[CallStory] = []
        self._keep = keep
        self._path = path
        self._file: TextIO | None = None if path is not None else to or sys.stderr  # type: ignore[assignment]
        self._teller = Teller(self._hear, instructions=instructions, zeros=zeros, invented=dry_run)
        self._dry_run = DryRun() if dry_run else None
        self._is_on = False

    def start(self) -> Self:
        """Begin to tell; a second time does nothing. Raises OSError when the file cannot be written."""
        if self._is_on:
            return self
        if self._path is not None:
            # Without a buffer: a buffer has a lock, which a child would inherit held.
            self._file = TextIOWrapper(FileIO(self._path, "w"), encoding="utf-8", write_through=True)
        if self._format == "html":
            from pybpf.explaining.page import head

            try:
                self._write(head(dry_run=self._dry_run is not None))
            except BaseException:
                self._close()
                raise
        add_observer(self._teller)
        if self._dry_run is not None:
            add_observer(self._dry_run)
        self._is_on = True
        return self

    def stop(self) -> None:
        """Tell no more. May be called twice."""
        if not self._is_on:
            return
        self._is_on = False
        if self._dry_run is not None:
            remove_observer(self._dry_run)
        remove_observer(self._teller)
        self._close()

    def _close(self) -> None:
        """Close the file, if it was opened here."""
        if self._path is not None and self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _hear(self, story: CallStory) -> None:
        if self._keep:
            self.calls.append(story)
        if self._format == "json":
            from json import dumps

            self._write(dumps(story.to_dict(), ensure_ascii=False) + "\n")
        elif self._format == "html":
            from pybpf.explaining.page import article

            self._write(article(story))
        else:
            self._write("".join(f"{line}\n" for line in lines(story)))

    def _write(self, text: str) -> None:
        """What is written is there at once, whatever becomes of the process."""
        if self._file is not None:
            self._file.write(text)
            self._file.flush()

    def __repr__(self) -> str:
        return f"<Explanation {'on' if self._is_on else 'off'}, {len(self.calls)} calls>"


def explain(
    to: str | os.PathLike[str] | TextIO | None = None,
    *,
    format: Format | None = None,
    instructions: bool = False,
    zeros: bool = False,
    dry_run: bool = False,
) -> Explanation:
    """Tell every call into the kernel, each field by its name and meaning, as long as a block runs:

        with pybpf.explain():
            obj = pybpf.load("x.bpf.o")

    It sees what all threads of this process do through pybpf, maps' elements too. See `Explanation` for the arguments;
    the environment variable PYBPF_EXPLAIN does the same for a whole process.
    """
    return Explanation(to, format=format, instructions=instructions, zeros=zeros, dry_run=dry_run)


def start_from_environment(value: str) -> None:
    """Tell everything until the process ends.

    Args:
        value: of PYBPF_EXPLAIN: "1" for text on the standard error, "json" for JSON there, else a path, in which "%p"
            stands for the process id. A file that cannot be written is told of, and nothing else: the program that
            somebody wants to look at shall run.
    """
    if value == "1":
        Explanation(keep=False).start()
    elif value in ("text", "json"):
        Explanation(format="json" if value == "json" else "text", keep=False).start()
    else:
        path = value.replace("%p", str(os.getpid()))
        try:
            Explanation(path, keep=False).start()
        except OSError as error:
            print(f"pybpf: PYBPF_EXPLAIN: {path}: {error.strerror}", file=sys.stderr)
