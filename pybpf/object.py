"""Object: an object file in the kernel. It owns programs, maps and their memory.

with pybpf.load("execsnoop.bpf.o") as obj, obj.attach():
    for event in obj.maps["events"]:
        print(event.pid, event.comm)
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf.errors import BPFError, ClosedError, ObjectError
from pybpf.loading.loader import Loader, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from pybpf.btf.reader import BTF
    from pybpf.links import Links
    from pybpf.live_globals import LiveGlobals
    from pybpf.maps import Map
    from pybpf.program import Program
    from pybpf.spec import ObjectSpec
    from pybpf.syscall.fd import FD


def load(
    source: str | os.PathLike[str] | bytes | ObjectSpec,
    *,
    name: str | None = None,
    btf: BTF | str | None = None,
    kconfig: str | None = None,
    log_level: int = 0,
    log_size: int = 0,
    pin_root: str = "/sys/fs/bpf",
    reuse: Mapping[str, Map | FD | int] | None = None,
    token: str | os.PathLike[str] | FD | int | None = None,
) -> Object:
    """Load a compiled BPF object into the running kernel.

    Args:
        source: path of a ``.bpf.o`` file, its contents, or an `ObjectSpec` that was opened and edited before.
        name: the object's name when `source` is bytes; it prefixes the names of data maps.
        btf: the types to relocate against instead of the running kernel's (a `BTF`, or the path of a BTF or ELF file).
        kconfig: lines ``CONFIG_X=value`` that go before the running kernel's configuration.
        log_level: verifier log for programs that load too: 1 for branches, 2 for each instruction, 4 for statistics.
        log_size: bytes to begin with for the log; it grows when it does not fit.
        pin_root: folder of a bpf file system where maps with ``pinning`` are shared by name.
        reuse: maps, or their descriptors, to use instead of creating the maps of these names.
        token: rights that somebody delegated to this user namespace: the root directory of a BPF file system that was
            mounted with delegate options, or the descriptor of a token (Linux 6.9). An empty string uses none. By
            default LIBBPF_BPF_TOKEN_PATH in the environment says where, else /sys/fs/bpf is tried in user namespaces
            other than the initial one.

    Raises:
        ObjectError: the file is no BPF object, or asks for what cannot be done; the message says where.
        VerifierError: the verifier rejected a program.
        RelocationError: the kernel lacks a type or field that the program needs.
        BPFError: the kernel refused for another reason; PermissionError without the capabilities
            (CAP_BPF and what the program types need, see capabilities(7)).

    Works from Linux 5.10. Whatever fails, nothing is left behind.
    """
    from pybpf.spec import ObjectSpec

    if isinstance(source, ObjectSpec):
        spec = source
    elif isinstance(source, (bytes, bytearray, memoryview)):
        spec = ObjectSpec.from_bytes(bytes(source), name=name or "object")
    else:
        spec = ObjectSpec.from_file(source)
    options = Options(
        btf=btf, kconfig=kconfig, log_level=log_level, log_size=log_size, pin_root=pin_root, reuse=reuse, token=token
    )
    return Object(spec, options)


class Object:
    """A loaded object. Close it, or use it in a ``with`` block.

    Attributes:
        spec: what it was loaded from.
        programs: `Program` by name; programs with ``autoload = False`` are not among them.
        maps: `Map` by name, each made when it is first asked for; data maps by the name of their section
            (``".bss"``). Which subclass each one is, only the file tells, so for type checkers they are `Any`: narrow
            them with ``isinstance(made, HashMap)``.
    """

    def __init__(self, spec: ObjectSpec, options: Options) -> None:
        loader = Loader(spec, options)
        loader.run()
        self.spec = spec
        self.programs: dict[str, Program] = loader.programs
        self.maps = loader.maps
        self._btf_fd = loader.btf_fd
        self._globals: LiveGlobals | None = None
        self._closed = False

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def btf(self) -> BTF | None:
        """The object's own type information."""
        return self.spec.btf

    @property
    def globals(self) -> LiveGlobals:
        """The global variables by name, read from and written to the kernel's memory."""
        if self._globals is None:
            from pybpf.live_globals import LiveGlobals

            self._globals = LiveGlobals(self)
        return self._globals

    def attach(self, *, strict: bool = True) -> Links:
        """Attach every program whose section says to what, in the order of the file, then the struct_ops maps.

        Programs whose section names no target (``xdp``, ``tc``, ``cgroup/...``) are left for their own
        ``program.attach_...()`` and are listed in the result's `skipped`.

        Args:
            strict: True: the first failure detaches all again and raises. False: what worked stays,
                and `failed` of the result lists the rest with the errors.

        Raises:
            BPFError: an attachment failed.
            ObjectError: a section names a target in a form that cannot be understood.
        """
        from pybpf.links import Links

        if self._closed:
            raise ClosedError(f"object {self.name!r} is closed")
        links = Links()
        try:
            for program in self.programs.values():
                self._attach_one(program, links, strict)
            for name in self.maps:
                if self.spec.maps[name].type_number == c.BPF_MAP_TYPE_STRUCT_OPS:
                    self._attach_struct_ops(self.maps[name], links, strict)
        except BaseException:
            links.close()
            raise
        return links

    @staticmethod
    def _attach_one(program: Program, links: Links, strict: bool) -> None:
        from pybpf.links import auto_attaches

        assert program.spec is not None  # programs of an object come from its spec
        if program.type_number == c.BPF_PROG_TYPE_STRUCT_OPS:
            return  # its map is what is attached
        if not program.spec.autoattach:
            links.skipped.append((program, "autoattach is off"))
            return
        if not auto_attaches(program):
            links.skipped.append((program, f"SEC({program.spec.section!r}) names no target"))
            return
        try:
            links.append(program.attach())
        except (BPFError, ObjectError) as error:
            if strict:
                raise
            links.failed.append((program, error))

    @staticmethod
    def _attach_struct_ops(made: Map, links: Links, strict: bool) -> None:
        from pybpf.maps.struct_ops import StructOpsMap

        assert isinstance(made, StructOpsMap)
        if made.spec is not None and not made.spec.autoattach:
            links.skipped.append((made, "autoattach is off"))
            return
        try:
            links.append(made.attach())
        except BPFError as error:
            if strict:
                raise
            links.failed.append((made, error))

    # Closing

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Close every descriptor and unmap the globals. Attached links keep their programs. May be called twice."""
        self._closed = True
        if self._globals is not None:
            self._globals.close()
        for program in self.programs.values():
            program.close()
        self.maps.close()
        if self._btf_fd is not None:
            self._btf_fd.close()

    def __enter__(self) -> Object:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self.programs)} programs, {len(self.maps)} maps"
        return f"<Object {self.name!r} {state}>"
