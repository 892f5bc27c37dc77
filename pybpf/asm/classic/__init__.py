"""Classic BPF: the machine of the 1993 paper, which still filters sockets, ports and system calls.

    program     Filter: one for all             assembler   text -> instructions
    instruction Instruction, encode, decode     disasm      instructions -> text, as tcpdump -d
    forms       tcpdump -ddd, -dd; one line     check       what the kernel demands
    machine     run a filter, step by step      translate   into eBPF
    pcap        capture files                   names       the numbers, generated

Attaching a filter to a socket and capturing with it: `pybpf.capture`. System calls: `pybpf.seccomp`.
"""

from __future__ import annotations

from pybpf.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.asm.classic.assembler import assemble
    from pybpf.asm.classic.check import check, check_seccomp
    from pybpf.asm.classic.disasm import disassemble
    from pybpf.asm.classic.instruction import Instruction, decode, encode
    from pybpf.asm.classic.machine import Packet, Step, run, trace
    from pybpf.asm.classic.program import Filter
    from pybpf.asm.classic.translate import translate

__all__ = [
    "Filter",
    "Instruction",
    "Packet",
    "Step",
    "assemble",
    "check",
    "check_seccomp",
    "decode",
    "disassemble",
    "encode",
    "run",
    "trace",
    "translate",
]

_HOMES = {
    "assembler": "assemble",
    "check": "check check_seccomp",
    "disasm": "disassemble",
    "instruction": "Instruction decode encode",
    "machine": "Packet Step run trace",
    "program": "Filter",
    "translate": "translate",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}


if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = lazy_names(globals(), _HOME)
