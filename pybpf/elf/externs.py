"""Externs: what a program takes from the kernel it is loaded into: settings, symbols, functions.

Rules of this module:

* An extern is an undefined symbol whose BTF stands in the section ``.kconfig`` or ``.ksyms``.
* Settings (``.kconfig``) get an offset in one read-only map, ordered as libbpf orders them. Their values are filled in
  at load time, and so are the addresses of kernel symbols.
* An extern of any other section was meant for static linking and is an `ObjectError`.

Source: tools/lib/bpf/libbpf.c, bpf_object__collect_externs().
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    KconfigKind = Literal["", "bool", "char", "int", "tristate", "string"]

KCONFIG = ".kconfig"
KSYMS = ".ksyms"


class Extern:
    """One thing that the kernel has to provide.

    Attributes:
        name: of the symbol, with a ``___flavor`` if it has one.
        section: ``".kconfig"`` or ``".ksyms"``.
        btf_id: the VAR or FUNC in the object's BTF.
        type_id: its type in the object's BTF: of a variable the variable's type (0: ``void``, a symbol without a
            type), of a function its FUNC_PROTO.
        is_weak: may be missing; then it is 0.
        is_function: a kernel function (kfunc), not a variable.
        offset, size: kconfig: place in the ``.kconfig`` map, bytes.
        kind: kconfig: ``"bool"``, ``"char"``, ``"int"``, ``"tristate"`` or ``"string"``, otherwise empty.
        is_signed: kconfig: whether an ``"int"`` is signed.
    """

    __slots__ = (
        "btf_id",
        "is_function",
        "is_signed",
        "is_weak",
        "kind",
        "name",
        "offset",
        "section",
        "size",
        "type_id",
    )

    def __init__(self, name: str, section: str, btf_id: int, type_id: int) -> None:
        self.name = name
        self.section = section
        self.btf_id = btf_id
        self.type_id = type_id
        self.is_weak = False
        self.is_function = False
        self.offset = 0
        self.size = 0
        self.kind: KconfigKind = ""
        self.is_signed = False

    def facts(self) -> tuple[object, ...]:
        """Everything in it, as a tuple that is equal for equal externs."""
        return (
            self.name,
            self.section,
            self.btf_id,
            self.type_id,
            self.is_weak,
            self.is_function,
            self.offset,
            self.size,
            self.kind,
            self.is_signed,
        )

    def __repr__(self) -> str:
        weak = " weak" if self.is_weak else ""
        return (
            f"<Extern {self.name!r} {self.section}{weak} {'function' if self.is_function else self.kind or 'symbol'}>"
        )
