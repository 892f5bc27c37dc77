"""Which kinds of types this kernel's BTF loader takes. Each question is one BPF_BTF_LOAD.

Source: tools/lib/bpf/features.c of the kernel.
"""

from __future__ import annotations

from pybpf import syscall
from pybpf.btf.writer import BTFBuilder
from pybpf.memlock import with_memlock
from pybpf.probe.answer import Answer, ask, kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pybpf.syscall.fd import FD, FdLike

    Describe = Callable[[BTFBuilder], object]


def integer(builder: BTFBuilder) -> int:
    return builder.add_int("int", 4, 32, 1)


def _func(builder: BTFBuilder, linkage: int = 0) -> None:
    number = integer(builder)
    builder.add_func("x", builder.add_func_proto(0, [("a", number)]), linkage)


def _datasec(builder: BTFBuilder, name: str = ".data") -> None:
    variable = builder.add_var("x", integer(builder), 0)
    builder.add_datasec(name, 4, [(variable, 0, 4)])


def _decl_tag(builder: BTFBuilder) -> None:
    builder.add_decl_tag("tag", builder.add_var("x", integer(builder), 0), -1)


def _type_tag(builder: BTFBuilder) -> None:
    builder.add_ptr(builder.add_type_tag("tag", integer(builder)))


KINDS: dict[str, Describe] = {
    "func": _func,  # Linux 5.0
    "func_global": lambda builder: _func(builder, 1),  # Linux 5.6
    "datasec": _datasec,  # Linux 5.2
    "datasec_question": lambda builder: _datasec(builder, "?.data"),  # Linux 6.9
    "float": lambda builder: builder.add_float("float", 4),  # Linux 5.13
    "decl_tag": _decl_tag,  # Linux 5.16
    "type_tag": _type_tag,  # Linux 5.17
    "enum64": lambda builder: builder.add_enum64("e", 8, False, []),  # Linux 6.0
}
"""What kernels learnt one by one, in the words of `pybpf.btf.writer.sanitise`."""


def _encoded(describe: Describe) -> bytes:
    builder = BTFBuilder()
    describe(builder)
    return builder.to_bytes()


def load_btf(describe: Describe, token_fd: FdLike | None = None) -> FD:
    """Types, in the kernel.

    Raises:
        BPFError: the kernel does not take them.
    """
    return with_memlock(syscall.btf_load, _encoded(describe), token_fd=token_fd)


def has_btf(kind: str = "", *, token_fd: FdLike | None = None) -> Answer:
    """Whether BPF_BTF_LOAD takes types of this kind.

    Args:
        kind: a key of `KINDS`: ``"enum64"``; empty for BTF at all (Linux 4.18).

    Raises:
        ValueError: the name is unknown.
    """
    if kind and kind not in KINDS:
        raise ValueError(f"no kind of BTF is called {kind!r}: there are {', '.join(KINDS)}")
    data = _encoded(KINDS.get(kind, integer))
    return kept(("BTF", kind), lambda: ask(syscall.btf_load, data, log="", token_fd=token_fd), token_fd)


def missing_btf_kinds(token_fd: FdLike | None = None) -> frozenset[str]:
    """The keys of `KINDS` that this kernel does not take, as far as it can be told."""
    return frozenset(kind for kind in KINDS if not has_btf(kind, token_fd=token_fd))
