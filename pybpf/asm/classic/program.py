"""Filter: a classic program, from any of its forms to any other, checked, run, and translated."""

from __future__ import annotations

import sys

from pybpf.asm.classic.instruction import Instruction, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pybpf.asm.assembler import Assembler
    from pybpf.asm.classic.machine import Packet, Step
    from pybpf.asm.slots import ByteOrder, Code


class Filter:
    """A classic filter.

    >>> arp = Filter.from_text('''
    ...         ldh [12]
    ...         jeq #ETHERTYPE_ARP, L1, L2
    ...     L1: ret #TRUE
    ...     L2: ret #0
    ... ''')
    >>> print(arp)
    (000) ldh      [12]
    (001) jeq      #0x806           jt 2	jf 3
    (002) ret      #-1
    (003) ret      #0

    Attributes:
        instructions: in order.
    """

    __slots__ = ("instructions",)

    def __init__(self, instructions: Iterable[Instruction]) -> None:
        self.instructions = tuple(instructions)

    # From

    @classmethod
    def from_text(cls, text: str, names: Mapping[str, int] | None = None) -> Filter:
        """Assemble: the 1993 paper's notation, bpf_asm's, or what tcpdump -d prints (see `classic.assembler`).

        Raises:
            ObjectError: a line cannot be understood; the message has its number.
        """
        from pybpf.asm.classic.assembler import assemble

        return cls(assemble(text, names))

    @classmethod
    def from_ddd(cls, text: str) -> Filter:
        """Read what tcpdump -ddd or bpf_asm print. Raises ObjectError."""
        from pybpf.asm.classic.forms import from_ddd

        return cls(from_ddd(text))

    @classmethod
    def from_dd(cls, text: str) -> Filter:
        """Read what tcpdump -dd prints. Raises ObjectError."""
        from pybpf.asm.classic.forms import from_dd

        return cls(from_dd(text))

    @classmethod
    def from_bytes(cls, data: Code, byte_order: ByteOrder = sys.byteorder) -> Filter:
        """Read an array of struct sock_filter. Raises ObjectError."""
        return cls(decode(data, byte_order))

    @classmethod
    def parse(cls, text: str, names: Mapping[str, int] | None = None) -> Filter:
        """Read whichever of the textual forms it is. Raises ObjectError."""
        stripped = text.strip()
        if stripped.startswith("{"):
            return cls.from_dd(text)
        return cls.from_ddd(text) if stripped[:1].isdecimal() else cls.from_text(text, names)

    # To

    def to_ddd(self) -> str:
        """As tcpdump -ddd prints it."""
        from pybpf.asm.classic.forms import to_ddd

        return to_ddd(self.instructions)

    def to_dd(self) -> str:
        """As tcpdump -dd prints it."""
        from pybpf.asm.classic.forms import to_dd

        return to_dd(self.instructions)

    def to_line(self) -> str:
        """As bpf_asm prints it, in one line."""
        from pybpf.asm.classic.forms import to_line

        return to_line(self.instructions)

    def to_bytes(self, byte_order: ByteOrder = sys.byteorder) -> bytes:
        """An array of struct sock_filter."""
        return encode(self.instructions, byte_order)

    def source(self) -> str:
        """In the notation of the paper, with labels."""
        from pybpf.asm.classic.disasm import source

        return source(self.instructions)

    def __str__(self) -> str:
        """As tcpdump -d prints it."""
        from pybpf.asm.classic.disasm import disassemble

        return "\n".join(disassemble(self.instructions))

    # With

    def check(self) -> None:
        """See that the kernel would take it for a socket. Raises ObjectError."""
        from pybpf.asm.classic.check import check

        check(self.instructions)

    def run(self, packet: bytes | Packet) -> int:
        """How many bytes of a packet it keeps; see `classic.machine`. Raises ObjectError."""
        from pybpf.asm.classic.machine import run

        return run(self.instructions, packet)

    def trace(self, packet: bytes | Packet) -> Iterator[Step]:
        """The same, with the state after each instruction. Raises ObjectError."""
        from pybpf.asm.classic.machine import trace

        return trace(self.instructions, packet)

    def translate(self, *, name: str = "filter", section: str = "socket") -> Assembler:
        """As an eBPF program; see `classic.translate`. Raises ObjectError."""
        from pybpf.asm.classic.translate import translate

        return translate(self.instructions, name=name, section=section)

    def __len__(self) -> int:
        return len(self.instructions)

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self.instructions == other.instructions

    def __hash__(self) -> int:
        return hash(self.instructions)

    def __repr__(self) -> str:
        return f"<Filter {len(self)} classic instructions>"
