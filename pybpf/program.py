"""Program: one loaded program, its descriptor, and the ways to attach and to run it."""

from __future__ import annotations

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import ClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from pybpf import abi, links
    from pybpf.asm import Assembler
    from pybpf.btf.reader import BTF
    from pybpf.links import Attached, Link
    from pybpf.links.attached import Target
    from pybpf.maps import Map
    from pybpf.maps.loaded import LoadedMaps
    from pybpf.spec import ProgramSpec
    from pybpf.syscall import TestRunResult
    from pybpf.syscall.fd import FD
    from pybpf.syscall.info import ProgramInfo


class Program:
    """A program in the kernel. Closing it does not detach what is attached: a link keeps its program.

    Attributes:
        name: the function's whole name (the kernel keeps 15 characters of it).
        spec: what it was loaded from, or None for a program opened by id or path.
        btf: the object's BTF, or None.
        maps: the maps of the object, or None.
        log: the verifier's log, when a log level was asked for; else empty.
    """

    def __init__(
        self,
        fd: FD,
        *,
        name: str,
        type_number: int = c.BPF_PROG_TYPE_UNSPEC,
        attach_type_number: int | None = None,
        spec: ProgramSpec | None = None,
        btf: BTF | None = None,
        maps: LoadedMaps | None = None,
        log: str = "",
    ) -> None:
        self._fd = fd
        self.name = name
        self.spec = spec
        self.btf = btf
        self.maps = maps
        self.log = log
        self.type_number = type_number if spec is None else spec.type_number
        if attach_type_number is None:
            attach_type_number = 0 if spec is None else spec.attach_type_number
        self.attach_type_number = attach_type_number

    @classmethod
    def _from_fd(cls, fd: FD) -> Program:
        try:
            info = syscall.prog_info(fd)
            return cls(fd, name=info.name, type_number=info.type)
        except BaseException:
            fd.close()
            raise

    @classmethod
    def from_asm(
        cls,
        source: str | Assembler | Iterable[Assembler],
        section: str = "",
        *,
        maps: Mapping[str, Map | FD | int] | None = None,
        license: str = "GPL",
        **options: Any,
    ) -> Program:
        """Load a program from instructions, without a compiler.

        >>> from pybpf import Program
        >>> with Program.from_asm("r0 = 2; exit", "xdp") as program:
        ...     program.test_run(bytes(14)).retval
        2

        Args:
            source: text (see `pybpf.asm.text`), or functions written in Python (`pybpf.asm.Assembler`); one of them is
                the program, the others are subprograms.
            section: what kind of program it is, as in ``SEC("xdp")``, unless `source` says so.
            maps: the maps that the instructions name. They stay the caller's; the program keeps what it needs.
            license: the kernel keeps some helpers for programs whose license is compatible with the GPL.
            options: as for `pybpf.load`: `log_level`, `token` ...

        Raises:
            ObjectError: the source cannot be understood, or has more programs than one (see `pybpf.asm.assemble`).
            VerifierError: the verifier rejected the program.
            BPFError: the kernel refused for another reason.
        """
        from pybpf.asm.build import assemble
        from pybpf.errors import ObjectError
        from pybpf.mapspec import MapSpec

        given = dict(maps or {})
        spec = assemble(source, section, maps={name: MapSpec(name) for name in given}, license=license)
        if len(spec.programs) != 1:
            raise ObjectError(f"{', '.join(spec.programs)}: more than one program; load what assemble() gives")
        with spec.load(reuse=given, **options) as loaded:
            return loaded.programs.popitem()[1]

    @classmethod
    def from_id(cls, number: int) -> Program:
        """Open a program by its id (BPF_PROG_GET_FD_BY_ID, Linux 4.13, CAP_SYS_ADMIN)."""
        return cls._from_fd(syscall.prog_get_fd_by_id(number))

    @classmethod
    def from_name(cls, name: str) -> Program:
        """Open the program of this name (of at most 15 characters of it), of those that are loaded now.

        Raises:
            BPFNotFoundError: there is none.
            BPFPermissionError: CAP_SYS_ADMIN is missing.
            ValueError: there are several; the message has their ids.
        """
        from errno import ENOENT

        from pybpf.errors import kernel_error
        from pybpf.system import programs

        found = [info.id for info in programs() if info.name == name[:15]]
        if len(found) > 1:
            raise ValueError(f"several programs are called {name!r}: {', '.join(map(str, found))}")
        if not found:
            hint = "No program that is loaded now has this name"
            raise kernel_error(ENOENT, "BPF_PROG_GET_NEXT_ID", f"program {name!r}", hint)
        return cls.from_id(found[0])

    @classmethod
    def open_pinned(cls, path: str) -> Program:
        """Open the program that is pinned at a path of a bpf file system (BPF_OBJ_GET, Linux 4.4)."""
        return cls._from_fd(syscall.obj_get(path))

    # Descriptor

    @property
    def fd(self) -> FD:
        return self._fd

    def fileno(self) -> int:
        """The descriptor's number. Raises `ClosedError` after `close()`."""
        if self._fd.closed:
            raise ClosedError(f"program {self.name!r} is closed")
        return self._fd.fileno()

    @property
    def closed(self) -> bool:
        return self._fd.closed

    def close(self) -> None:
        """Close the descriptor. The kernel drops the program when nothing else holds it. May be called twice."""
        self._fd.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def pin(self, path: str) -> None:
        """Pin the program at a path of a bpf file system, so that it outlives this process (BPF_OBJ_PIN, Linux 4.4)."""
        syscall.obj_pin(path, self.fileno())

    # What it is

    @property
    def type(self) -> abi.ProgramType:
        from pybpf.abi import ProgramType

        return ProgramType(self.type_number)

    def info(self, **wanted: bool) -> ProgramInfo:
        """struct bpf_prog_info: id, tag, name, map_ids, run_time_ns, run_cnt, verified_insns and so on.

        Args:
            wanted: arrays to fetch too, see `pybpf.syscall.prog_info` (``xlated=True``, ``map_ids=True`` ...).
        """
        return syscall.prog_info(self.fileno(), **wanted)

    @property
    def id(self) -> int:
        """The kernel's number of the program."""
        return int(self.info().id)

    def disassemble(self, *, jited: bool = False) -> list[str]:
        """The instructions as the verifier left them, or the machine code, with lines of source; see `pybpf.dump`.

        Raises:
            BPFPermissionError: the kernel does not give them away (kernel.kptr_restrict, CAP_SYSLOG).
            NotSupportedError: `jited`: it is not compiled, or capstone is not installed.
        """
        from pybpf import dump

        return dump.jited(self.fileno()) if jited else dump.translated(self.fileno())

    # Running it

    def test_run(self, data: bytes | None = None, **options: Any) -> TestRunResult:
        """Run the program once, or `repeat` times, on given input (BPF_PROG_TEST_RUN, Linux 4.12).

        Args:
            data: the packet or other input.
            options: `ctx_in`, `ctx_size_out`, `data_size_out`, `repeat`, `flags`, `cpu`, `batch_size`.

        Raises:
            NotSupportedError: programs of this type cannot be run so.
        """
        if data is not None and "data_size_out" not in options:
            options["data_size_out"] = len(data) + 256  # XDP_PACKET_HEADROOM: a program may grow the packet by that
        return syscall.prog_test_run(self.fileno(), data_in=data, **options)

    # Attaching it: each method is the function of the same name in pybpf.links, which says what may go wrong.

    if TYPE_CHECKING:
        attach_breakpoint = links.attach_breakpoint
        attach_cgroup = links.attach_cgroup
        attach_freplace = links.attach_freplace
        attach_iter = links.attach_iter
        attach_kprobe = links.attach_kprobe
        attach_kprobe_multi = links.attach_kprobe_multi
        attach_kretprobe = links.attach_kretprobe
        attach_kretsyscall = links.attach_kretsyscall
        attach_ksyscall = links.attach_ksyscall
        attach_lirc = links.attach_lirc
        attach_lwt = links.attach_lwt
        attach_netfilter = links.attach_netfilter
        attach_netkit = links.attach_netkit
        attach_netns = links.attach_netns
        attach_perf_event = links.attach_perf_event
        attach_perf_fd = links.attach_perf_fd
        attach_raw_tracepoint = links.attach_raw_tracepoint
        attach_reuseport = links.attach_reuseport
        attach_socket_filter = links.attach_socket_filter
        attach_sockmap = links.attach_sockmap
        attach_tc = links.attach_tc
        attach_tcx = links.attach_tcx
        attach_trace = links.attach_trace
        attach_tracepoint = links.attach_tracepoint
        attach_tracing_multi = links.attach_tracing_multi
        attach_uprobe = links.attach_uprobe
        attach_uprobe_multi = links.attach_uprobe_multi
        attach_uretprobe = links.attach_uretprobe
        attach_usdt = links.attach_usdt
        attach_xdp = links.attach_xdp

    def attach(self, **options: Any) -> Link:
        """Attach as the section name says; see `pybpf.links.attach`."""
        from pybpf.links import attach

        return attach(self, **options)

    def query(self, target: Target = None, attach_type: int | None = None, *, effective: bool = False) -> Attached:
        """What is attached to the hook that this program is for, of a cgroup, an interface, a socket map and so on.

        `pybpf.links.query` has the table of hooks and targets. ``program in program.query(target)`` tells whether this
        program is among them.

        Args:
            target: what the hook is of; None for this thread's network namespace.
            attach_type: the hook, an `AttachType`, when the program was loaded for none.
            effective: of a cgroup, the programs of the cgroups above too.
        """
        from pybpf.links.attached import query_program

        return query_program(self, target, attach_type, effective=effective)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("attach_"):
                from pybpf import links

                function = getattr(links, name, None)
                if function is not None:
                    from functools import partial

                    return partial(function, self)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        from pybpf import links

        ways = [name for name in links.__all__ if name.startswith("attach_") and name != "attach_struct_ops"]
        return [*super().__dir__(), *ways]

    def __repr__(self) -> str:
        names = c.PROG_TYPE_NAMES
        kind = names[self.type_number] if self.type_number < len(names) else self.type_number
        return f"<Program {self.name!r} {kind}{' closed' if self.closed else ''}>"
