"""Debugger: one run of a simulated program, step by step.

>>> debugger = kernel.programs["count"].debug(packet)
>>> debugger.add_breakpoint("xdp_count.bpf.c:32")
>>> while debugger.resume():
...     print(debugger.line, debugger.registers["r1"])
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from pybpf.btf.lines import Line
    from pybpf.sim.code import Code
    from pybpf.sim.kernel import Run, RunResult


class Value:
    """What a register holds.

    Attributes:
        number: as 64 unsigned bits; None: it has no value.
        meaning: what it points to, ``"packet +14"``, ``"value of map 'counts' +0"``; empty for a plain number.
    """

    __slots__ = ("meaning", "number")

    def __init__(self, number: int | None, meaning: str) -> None:
        self.number = number
        self.meaning = meaning

    @property
    def is_set(self) -> bool:
        return self.number is not None

    def __str__(self) -> str:
        if self.number is None:
            return "no value"
        if self.meaning:
            return f"{self.number:#x} ({self.meaning})"
        return f"{self.number:#x}" if self.number >= 10 else str(self.number)

    def __repr__(self) -> str:
        return f"<Value {self}>"


class Debugger:
    """A run that stands still between two instructions. Use it with ``with``, or `close()` it.

    Attributes:
        result: what the run gave; None until it has ended.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._breakpoints: set[tuple[str, int]] = set()
        self.result: RunResult | None = None

    # Where it stands

    @property
    def done(self) -> bool:
        """Whether the program has ended."""
        return self._run.cpu.done

    @property
    def code(self) -> Code:
        """The program that runs: after a tail call another one."""
        return self._run.cpu.frame.code

    @property
    def index(self) -> int:
        """The instruction that comes next."""
        return self._run.cpu.frame.pc

    @property
    def instruction(self) -> str:
        """Its text."""
        return str(self.code.instructions[self.index])

    @property
    def function(self) -> str:
        return self.code.function_at(self.index)[1]

    @property
    def line(self) -> Line | None:
        """The line of C that it comes from."""
        return self.code.line_at(self.index)

    @property
    def registers(self) -> dict[str, Value]:
        """r0 to r10 and what they point to."""
        memory = self._run.memory
        values = self._run.cpu.registers
        return {f"r{n}": Value(one, "" if one is None else memory.describe(one)) for n, one in enumerate(values)}

    @property
    def stack(self) -> bytes:
        """The 512 bytes of the function that runs; the last one is just below r10."""
        return bytes(self._run.cpu.frame.stack.data)

    @property
    def backtrace(self) -> list[str]:
        """The functions that are under way, the innermost first, with their lines."""
        found = []
        for frame in reversed(self._run.cpu.frames):
            index = frame.pc if frame is self._run.cpu.frame else max(frame.pc - 1, 0)
            line = frame.code.line_at(index)
            name = frame.code.function_at(index)[1]
            found.append(f"{name} at {line.location}" if line is not None else f"{name} at instruction {index}")
        return found

    def read(self, address: int, size: int) -> bytes:
        """Memory that the program may read. Raises SimulationError."""
        return self._run.memory.read(address, size)

    # Going on

    def step(self) -> bool:
        """Execute one instruction. False: the program has ended, and `result` is there.

        Raises:
            SimulationError: it did what the verifier would forbid. The debugger still stands before the instruction.
        """
        if self.result is None:
            self._run.step()
            if self.done:
                self.result = self._run.finish()
        return self.result is None

    def step_line(self) -> bool:
        """Go on until another line of C comes, in whatever function. False: the program has ended."""
        before = self._place()
        while self.step():
            if self._place() not in (before, None):
                return True
        return False

    def step_over(self) -> bool:
        """Go on until another line of C comes in this function or one that called it. False: it has ended."""
        depth = len(self._run.cpu.frames)
        before = self._place()
        while self.step():
            if len(self._run.cpu.frames) <= depth and self._place() not in (before, None):
                return True
        return False

    def add_breakpoint(self, place: str | int) -> None:
        """Stop before an instruction (a number), a function (its name), or a line (``"file.c:12"``, or ``"12"``).

        Raises:
            ValueError: there is no such place in the program.
        """
        found = set(self._places(place))
        if not found:
            raise ValueError(f"program {self.code.name!r} has no place {place!r}")
        self._breakpoints |= found

    def clear_breakpoints(self) -> None:
        self._breakpoints.clear()

    def resume(self) -> bool:
        """Go on up to a breakpoint. False: the program has ended."""
        while self.step():
            if (self.code.name, self.index) in self._breakpoints:
                return True
        return False

    def _place(self) -> tuple[str, int] | None:
        line = self.line
        return None if line is None else (line.file, line.number)

    def _places(self, place: str | int) -> list[tuple[str, int]]:
        code = self.code
        if isinstance(place, int):
            return [(code.name, place)] if 0 <= place < len(code) and code.instructions[place] is not None else []
        starts = [index for index, name in code.functions if name == place]
        if starts:
            return [(code.name, index) for index in starts]
        file, _, number = place.rpartition(":")
        if not number.isdecimal():
            return []
        found = []
        before = None
        for index, insn in enumerate(code.instructions):
            line = None if insn is None else code.line_at(index)
            if line is None:
                continue
            here = line.number == int(number) and (not file or line.file == file or line.file.endswith(f"/{file}"))
            if here and before is not True:
                found.append((code.name, index))
            before = here
        return found

    # Life

    def close(self) -> None:
        """Take the run's memory away. May be called twice."""
        self._run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.done:
            return f"<Debugger: ended after {self._run.cpu.steps} instructions>"
        line = self.line
        where = "" if line is None else f", {line.location}: {line.text.strip()}"
        return f"<Debugger {self.code.name} at {self.index}: {self.instruction}{where}>"


__all__ = ["Debugger", "Value"]
