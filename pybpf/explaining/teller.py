"""The observer that makes stories of calls, and hands each to whoever wants it."""

from __future__ import annotations

from time import perf_counter_ns

from pybpf.errors import ObjectError, errno_name, errno_text
from pybpf.explaining.descriptors import Descriptors
from pybpf.explaining.fields import tell
from pybpf.explaining.history import table
from pybpf.explaining.meanings import COMMANDS
from pybpf.explaining.story import CallStory
from pybpf.forks import ForkLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.syscall import Call


class Teller:
    """An observer of the door.

    Args:
        hear: is given each story, one at a time.
        instructions: disassemble programs that are loaded.
        zeros: tell fields that are 0 too.
        invented: descriptors stand for objects that do not exist (a dry run).
    """

    def __init__(
        self,
        hear: Callable[[CallStory], object],
        *,
        instructions: bool = False,
        zeros: bool = False,
        invented: bool = False,
    ) -> None:
        self._hear = hear
        self._instructions = instructions
        self._zeros = zeros
        self._descriptors = Descriptors(invented)
        self._open: dict[int, tuple[dict[str, int | str | bytes], int]] = {}
        self._count = 0
        self._lock = ForkLock()

    def before(self, call: Call) -> None:
        """Note what is handed over, and when."""
        self._open[id(call)] = call.fields(), perf_counter_ns()

    def after(self, call: Call) -> None:
        """Tell the call."""
        now = perf_counter_ns()
        fields, began = self._open.pop(id(call))
        # Observers are never observed, so a signal handler does not get here while this thread holds the lock.
        with self._lock:
            self._count += 1
            story = CallStory(self._count, call.name, call.command)
            self._fill(story, call, fields)
            story.microseconds = (now - began) / 1000
            self._hear(story)

    def _fill(self, story: CallStory, call: Call, fields: dict[str, int | str | bytes]) -> None:
        title = call.command or call.name
        story.purpose = COMMANDS.get(title) or COMMANDS.get(call.name, "")
        found = table().get(call.command)
        story.since = found.version if found is not None else ""
        story.size = len(call.data)
        story.result = call.result if call.result is not None else 0
        story.errno = call.errno
        if call.errno:
            story.result = -1
            story.errno_name, story.errno_text = errno_name(call.errno), errno_text(call.errno)
        story.answered = call.answered
        story.fields = tell(call, fields, self._descriptors, zeros=self._zeros)
        if not call.errno and call.result is not None and (call.makes_descriptor or call.name == "socket"):
            story.made = self._descriptors.learn(call, call.result) or self._descriptors.describe(call.result)
        self._texts(story, call)

    def _texts(self, story: CallStory, call: Call) -> None:
        for name in ("log_buf", "btf_log_buf"):
            log = call.buffers.get(name)
            if log is not None:
                story.log = bytes(log).partition(b"\0")[0].decode("utf-8", "backslashreplace")
        insns = call.buffers.get("insns")
        if self._instructions and insns is not None:
            story.instructions = self._disassembly(bytes(insns))

    def _disassembly(self, code: bytes) -> list[str]:
        from pybpf.asm.disasm import disassemble
        from pybpf.asm.instruction import Instruction
        from pybpf.constants import BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE

        def words(_: int, insn: Instruction) -> str | None:
            if insn.src not in (BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE):
                return None
            what = self._descriptors.describe(insn.imm)
            return f"{what} (fd {insn.imm})" + (f" + {insn.high}" if insn.src == BPF_PSEUDO_MAP_VALUE else "")

        try:
            return disassemble(code, constants=words)
        except ObjectError as error:
            return [f"(no program: {error})"]
