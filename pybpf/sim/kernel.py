"""Kernel: a simulated kernel with one object loaded: run its programs, look into its maps, without Linux.

    >>> from pybpf import ObjectSpec, sim
    >>> kernel = sim.load(ObjectSpec.from_file("kernels/xdp_count.bpf.o"))
    >>> kernel.programs["count"].run(packet).retval
    2

Rules of this module:

* It needs no privileges and no kernel, and takes objects of either byte order.
* Nothing happens by itself: the clock stands still unless `tick_ns` is set, random numbers are those of `random`, the
  current task is what `pid`, `tgid`, `uid`, `gid` and `comm` say.
* What the verifier would forbid (memory that is not the program's, a register without a value) is a `SimulationError`
  with the instruction and the line of C; so is what is not simulated.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from random import Random
from types import FunctionType, GeneratorType

from pybpf import constants as c
from pybpf.asm.classic.names import SKF_LL_OFF, SKF_NET_OFF
from pybpf.errors import ObjectError, SimulationError
from pybpf.sim.code import Linker
from pybpf.sim.context import ETHERNET, make_context
from pybpf.sim.cpu import CPU, MASK32
from pybpf.sim.events import EventMap
from pybpf.sim.helpers import HELPERS, tail_call
from pybpf.sim.maps import (
    ArrayMap,
    BloomMap,
    HashMap,
    PerCPUArrayMap,
    PerCPUHashMap,
    QueueMap,
    SimMap,
    ThingMap,
    TrieMap,
    World,
)
from pybpf.sim.memory import Handle, Memory, Region
from pybpf.sim.text import format_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from pybpf.btf.reader import BTF
    from pybpf.mapspec import MapSpec
    from pybpf.sim.code import Code
    from pybpf.sim.context import Context
    from pybpf.sim.coverage import Coverage
    from pybpf.sim.debug import Debugger
    from pybpf.spec import ObjectSpec, ProgramSpec

STEP_LIMIT = 10_000_000
"""Instructions after which a run is taken to be endless."""


class RunResult:
    """What a run gave.

    Attributes:
        retval: what the program returned, as an unsigned 32-bit number; `r0` is all 64 bits of it.
        data: the packet as the program left it; of XDP with its metadata before it.
        ctx: the context as the program left it.
        steps: how many instructions were executed.
        redirect: where the packet was redirected to: an interface, what a map holds, a list when it is all of a map
            (BPF_F_BROADCAST); or None.
        printed: what the program printed in this run, one text for each call of bpf_trace_printk().
    """

    __slots__ = ("ctx", "data", "printed", "r0", "redirect", "retval", "steps")

    def __init__(self, r0: int, data: bytes, ctx: bytes, steps: int, redirect: Any, printed: list[str]) -> None:
        self.r0 = r0
        self.retval = r0 & MASK32
        self.data = data
        self.ctx = ctx
        self.steps = steps
        self.redirect = redirect
        self.printed = printed

    def __repr__(self) -> str:
        return f"<RunResult retval={self.retval} steps={self.steps} data={len(self.data)} bytes>"


_MAP_KINDS: dict[int, Callable[[World, MapSpec, BTF | None], SimMap]] = {
    c.BPF_MAP_TYPE_HASH: HashMap,
    c.BPF_MAP_TYPE_LRU_HASH: HashMap,
    c.BPF_MAP_TYPE_PERCPU_HASH: PerCPUHashMap,
    c.BPF_MAP_TYPE_LRU_PERCPU_HASH: PerCPUHashMap,
    c.BPF_MAP_TYPE_ARRAY: ArrayMap,
    c.BPF_MAP_TYPE_PERCPU_ARRAY: PerCPUArrayMap,
    c.BPF_MAP_TYPE_LPM_TRIE: TrieMap,
    c.BPF_MAP_TYPE_QUEUE: QueueMap,
    c.BPF_MAP_TYPE_STACK: QueueMap,
    c.BPF_MAP_TYPE_BLOOM_FILTER: BloomMap,
    c.BPF_MAP_TYPE_RINGBUF: EventMap,
    c.BPF_MAP_TYPE_PERF_EVENT_ARRAY: EventMap,
}


def make_map(world: World, spec: MapSpec, btf: BTF | None) -> SimMap:
    """The map that a spec describes."""
    return _MAP_KINDS.get(spec.type_number, ThingMap)(world, spec, btf)


class Run:
    """One run of a program, which helpers get.

    Attributes:
        kernel, program, context, memory: where it runs, what runs, and on what.
        cpu: the processor.
        redirect: where the program has redirected its packet to.
        printed: what it has printed.
        is_skb: whether its packet is a socket buffer.
    """

    def __init__(self, program: Program, context: Context) -> None:
        self.kernel = program.kernel
        self.program = program
        self.context = context
        self.memory = self.kernel.memory
        self.redirect: Any = None
        self.printed: list[str] = []
        self.is_skb = context.packet is not None and program.spec.type_number != c.BPF_PROG_TYPE_XDP
        self.cpu = CPU(program.code, self.memory, self._find_helper, self._find_kfunc, (context.base,))
        if self.is_skb:
            self.cpu.packet_load = self._load_packet

    def _load_packet(self, offset: int, size: int) -> int | None:
        packet = self.context.packet
        assert packet is not None, "only programs with packets load from them"
        content = packet.content
        # Negative offsets of classic BPF: from the network header, which is behind the link header, or from the latter.
        if offset < 0:
            whole = bytes(packet.data[packet.start - self.context.header : packet.end])
            content = whole
            offset = offset - SKF_NET_OFF + ETHERNET if offset >= SKF_NET_OFF else offset - SKF_LL_OFF
        if not 0 <= offset <= len(content) - size:
            return None
        return int.from_bytes(content[offset : offset + size], "big")

    def _find_helper(self, cpu: CPU, number: int) -> Callable[..., Any]:
        name = c.HELPER_NAMES[number] if 0 <= number < len(c.HELPER_NAMES) else None
        function = self.kernel.helpers.get(name or str(number))
        if function is None:
            raise SimulationError(f"helper bpf_{name or number}() is not simulated: give one as helpers={{...}}")
        return self._called(function, name or str(number))

    def _find_kfunc(self, cpu: CPU, name: str) -> Callable[..., Any]:
        function = self.kernel.kfuncs.get(name)
        if function is None:
            raise SimulationError(f"kernel function {name}() is not simulated: give one as kfuncs={{...}}")
        return self._called(function, name)

    def _called(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """With this run first, and only so many registers as it takes."""
        takes, takes_more = _arity(function)

        def call(cpu: CPU, *registers: int | None) -> Any:
            for index, value in enumerate(registers[:takes]):
                if value is None:
                    raise SimulationError(f"r{index + 1} has no value at the call of {name}()")
            result = function(self, *(registers if takes_more else registers[:takes]))
            if not isinstance(result, int | GeneratorType) and function is not tail_call:
                raise SimulationError(f"{name}() gave {result!r}, not a number for r0")
            return result

        return call

    def print(self, text: bytes, values: Sequence[int | None]) -> int:
        made = format_text(text, values, self.memory)
        if made is None:
            return -errno.EINVAL
        self.printed.append(made.decode("utf-8", "backslashreplace").rstrip("\n"))
        return len(made)

    @contextmanager
    def borrowed(self, data: bytes) -> Iterator[int]:
        """Bytes in memory for the time of a call back."""
        region = self.memory.map(Region("key", bytearray(data), writable=False))
        try:
            yield region.base
        finally:
            self.memory.unmap(region)

    def step(self) -> None:
        """Execute one instruction. Raises SimulationError, which says where."""
        cpu = self.cpu
        coverage = self.kernel.coverage
        if coverage is not None:
            coverage.count(cpu.frame.code, cpu.frame.pc)
        try:
            cpu.step()
        except SimulationError as error:
            raise self._located(error) from None

    def _located(self, error: SimulationError) -> SimulationError:
        frame = self.cpu.frames[-1] if self.cpu.frames else None
        if frame is None or error.where:
            return error
        code, index = frame.code, frame.pc
        insn = code.instructions[index] if 0 <= index < len(code) else None
        where = f"program {code.name!r}, instruction {index}"
        line = code.line_at(index) if insn is not None else None
        return SimulationError(
            error.reason,
            where=where,
            instruction="" if insn is None else str(insn),
            line="" if line is None else f"{line.location}: {line.text.strip()}",
        )

    def finish(self) -> RunResult:
        """What it gave. Raises SimulationError when it has kept what it had to give back."""
        for one in self.kernel.event_maps():
            if one.pending:
                raise SimulationError(f"a record reserved from map {one.name!r} was neither submitted nor discarded")
        packet = self.context.packet
        data = b""
        if packet is not None:
            # The kernel puts zeros for the link header that a program does not see; metadata of XDP goes along.
            start = packet.start if self.is_skb else packet.meta
            data = bytes(self.context.header) + bytes(packet.data[start : packet.end])
        cpu = self.cpu
        return RunResult(cpu.result, data, bytes(self.context.data), cpu.steps, self.redirect, self.printed)

    def close(self) -> None:
        """Take its memory away."""
        self.cpu.close()
        self.memory.unmap(self.context)
        if self.context.packet is not None:
            self.memory.unmap(self.context.packet)
        for one in self.kernel.event_maps():
            one.drop_pending()
        self.kernel.tidy()


def _arity(function: Callable[..., Any]) -> tuple[int, bool]:
    """How many registers a helper takes after the run, and whether it takes all that there are."""
    if type(function) is FunctionType:
        code = function.__code__
        return code.co_argcount - 1, bool(code.co_flags & 4)
    from inspect import signature

    kinds = [one.kind for one in signature(function).parameters.values()]
    return sum(kind <= 1 for kind in kinds) - 1, 2 in kinds  # positional or either way; *arguments


class Program:
    """One program of a simulated kernel."""

    def __init__(self, kernel: Kernel, spec: ProgramSpec, code: Code) -> None:
        self.kernel = kernel
        self.spec = spec
        self.code = code
        self.name = spec.name
        self.handle = kernel.memory.map(Handle(f"program {spec.name!r}", self))

    def run(self, data: bytes | None = None, *, ctx: bytes | None = None, limit: int = STEP_LIMIT) -> RunResult:
        """Run it once.

        Args:
            data: the packet, for the types that have one.
            ctx: the context: the bytes of `struct xdp_md` or `struct __sk_buff`, or of what other types get.
            limit: instructions after which it is taken to be endless.

        Raises:
            SimulationError: it did what the verifier would forbid, or what is not simulated.
            ValueError: the packet or the context does not suit this type of program.
        """
        run = self.start(data, ctx=ctx)
        try:
            cpu = run.cpu
            while not cpu.done:
                if cpu.steps >= limit:
                    raise SimulationError(f"not at its end after {limit} instructions")
                run.step()
            return run.finish()
        finally:
            run.close()

    test_run = run
    """The name that live programs have for it."""

    def start(self, data: bytes | None = None, *, ctx: bytes | None = None) -> Run:
        """A run that stands before its first instruction. The caller steps and closes it."""
        memory = self.kernel.memory
        return Run(self, make_context(self.spec.type_number, data, ctx, memory))

    def debug(self, data: bytes | None = None, *, ctx: bytes | None = None) -> Debugger:
        """A run under a debugger: steps, breakpoints, registers."""
        from pybpf.sim.debug import Debugger

        return Debugger(self.start(data, ctx=ctx))

    def __repr__(self) -> str:
        return f"<simulated program {self.name!r}: {len(self.code)} instructions>"


class Kernel(World):
    """A simulated kernel.

    Args:
        spec: the object. Its maps and globals are copied: what programs do does not change it.
        btf: a kernel's types to relocate CO-RE accesses for. None: structs are as the object has them.
        cpus: how many CPUs there are.
        helpers, kfuncs: functions for what is not simulated, or instead of what is: name without ``bpf_`` -> a Python
            function of the `Run` and of the arguments, which gives r0.
        symbols: addresses of kernel variables (``__ksym``).
        kconfig: values of ``__kconfig`` externs.

    Attributes:
        programs, maps: by name.
        memory: all memory; `place()` puts something of the caller's there.
        cpu: the CPU on which programs run.
        clock_ns, tick_ns: the time, and by how much each reading of it moves it on.
        random: where bpf_get_prandom_u32() gets its numbers: the same in every process.
        pid, tgid, uid, gid, comm, cgroup_id, cookie, task: what helpers tell.
        coverage: counts instructions, when it is set.

    Raises:
        ObjectError: the object cannot be linked.
        ValueError: `cpus` is less than 1.
        RelocationError: a CO-RE relocation fails for `btf`.
        SimulationError: a program needs what is not there.
    """

    def __init__(
        self,
        spec: ObjectSpec,
        *,
        btf: BTF | None = None,
        cpus: int = 1,
        helpers: Mapping[str, Callable[..., Any]] | None = None,
        kfuncs: Mapping[str, Callable[..., Any]] | None = None,
        symbols: Mapping[str, int] | None = None,
        kconfig: Mapping[str, Any] | None = None,
    ) -> None:
        self.spec = spec
        self.memory = Memory(spec.byte_order)
        if cpus < 1:
            raise ValueError(f"a kernel has at least one CPU, not {cpus}")
        self.cpus = cpus
        self.clock_ns, self.tick_ns = 1_000_000_000, 0
        self.hz = 250
        self.random = Random(0)
        self.pid = self.tgid = 1
        self.uid = self.gid = 0
        self.comm = "init"
        self.cgroup_id = 1
        self.cookie = 0
        self.task = 0
        self.helpers = {**HELPERS, **(helpers or {})}
        self.kfuncs = dict(kfuncs or {})
        self.coverage: Coverage | None = None
        self._symbols = dict(symbols or {})
        self._forgotten: list[Region] = []
        self._added: list[SimMap] = []
        self._settings = dict(kconfig or {})
        self.maps: dict[str, Any] = {
            one.name: make_map(self, one, one.btf or spec.btf) for one in spec.maps.values() if one.struct_ops is None
        }
        if ".kconfig" in self.maps:
            self._fill_settings(self.maps[".kconfig"])
        linker = Linker(spec, self.memory, self._place, btf)
        self.programs = {name: Program(self, one, linker.link(one)) for name, one in spec.programs.items()}
        self._fill_slots()

    # What is loaded

    def _place(self, kind: str, name: str) -> int:
        """Where what an instruction refers to is."""
        if kind == "extern":
            if name in self._symbols:
                return self._symbols[name]
            if self.spec.externs[name].is_weak:
                return 0
            raise SimulationError(f"kernel symbol {name!r} is not there: give its address as symbols={{...}}")
        return int(self.maps[name].handle.base) if kind == "map" else self.region_of(name).base

    def region_of(self, name: str) -> Region:
        """The memory of the variables in a map. Raises SimulationError: it is none that is simulated."""
        found = self.maps[name]
        if isinstance(found, ArrayMap) and found.type_number == c.BPF_MAP_TYPE_ARRAY:
            return found.region
        raise SimulationError(f"variables in map {name!r} ({found.spec.type_name}) are not simulated")

    def _fill_settings(self, settings: ArrayMap) -> None:
        from pybpf.btf.codec import codec

        for name, value in self._settings.items():
            extern = self.spec.externs.get(name)
            if extern is None or extern.section != ".kconfig":
                raise ObjectError(f"{self.spec.name} has no setting {name!r}")
            assert self.spec.btf is not None, "externs come from BTF"
            made = codec(self.spec.btf, extern.type_id)
            made.encode_into(settings.region.data, extern.offset, value)

    def _fill_slots(self) -> None:
        for spec in self.spec.maps.values():
            for slot, name in spec.values.items():
                thing = self.programs.get(name) or self.maps.get(name)
                self.maps[spec.name].things[slot.to_bytes(4, self.memory.byte_order)] = thing

    def event_maps(self) -> list[EventMap]:
        """Ring buffers and perf event arrays, those in maps of maps too."""
        return [one for one in (*self.maps.values(), *self._added) if isinstance(one, EventMap)]

    def ring_of(self, record: int) -> EventMap:
        """The ring buffer that a record was reserved from. Raises SimulationError."""
        for one in self.event_maps():
            if one.owns(record):
                return one
        raise SimulationError(f"{record:#x} is no record of a ring buffer")

    def add_map(self, spec: MapSpec) -> SimMap:
        """Make one more map, to put into a map of maps."""
        made = make_map(self, spec, spec.btf or self.spec.btf)
        self._added.append(made)
        return made

    # What a test sets

    def read_clock(self) -> int:
        now = self.clock_ns
        self.clock_ns += self.tick_ns
        return now

    def place(self, data: bytes, title: str = "memory") -> int:
        """Put bytes into memory for programs to read, and give their address: a task, a user's string."""
        return self.memory.map(Region(title, bytearray(data))).base

    @property
    def globals(self) -> Globals:
        """The global variables by name: they can be read and, unless constant, written."""
        return Globals(self)

    def forget(self, region: Region) -> None:
        self._forgotten.append(region)

    def tidy(self) -> None:
        """Take away the memory of deleted elements: no run holds a pointer to it any more."""
        while self._forgotten:
            self.memory.unmap(self._forgotten.pop())

    def __repr__(self) -> str:
        return f"<simulated kernel with {self.spec.name}: {len(self.programs)} programs, {len(self.maps)} maps>"


class Globals:
    """The global variables of a simulated object, by name."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def _find(self, name: str) -> tuple[Any, Any, bytearray]:
        from pybpf.btf.codec import codec

        variable = self._kernel.spec.variables.get(name)
        if variable is None:
            from pybpf.variables import unknown_name

            raise unknown_name("global variable", name, self._kernel.spec.variables)
        assert self._kernel.spec.btf is not None, "variables come from BTF"
        region = self._kernel.region_of(variable.map)
        return variable, codec(self._kernel.spec.btf, variable.type_id), region.data

    def __getitem__(self, name: str) -> Any:
        variable, made, data = self._find(name)
        return made.decode(data, variable.offset)

    def __setitem__(self, name: str, value: Any) -> None:
        variable, made, data = self._find(name)
        if not self._kernel.region_of(variable.map).writable:
            raise TypeError(f"{name} lies in {variable.map}, which is frozen: set it in spec.globals before the load")
        made.encode_into(data, variable.offset, value)

    def __contains__(self, name: object) -> bool:
        return name in self._kernel.spec.variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._kernel.spec.variables)

    def __len__(self) -> int:
        return len(self._kernel.spec.variables)

    def __repr__(self) -> str:
        return f"<globals of {self._kernel.spec.name}: {', '.join(self) or 'none'}>"


def load(spec: ObjectSpec, **options: Any) -> Kernel:
    """A simulated kernel with this object. The options are those of `Kernel`."""
    return Kernel(spec, **options)
