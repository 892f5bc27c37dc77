"""`pybpf disasm`: the instructions of an object's programs, as text, without loading anything."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any


def add_command(commands: Any) -> None:
    parser = commands.add_parser("disasm", help="print the instructions of an object's programs")
    parser.add_argument("object", metavar="OBJECT", help="a .bpf.o file, or a name that `pybpf kernels` lists")
    parser.add_argument("program", nargs="?", metavar="PROGRAM", help="one program; all when it is left out")
    parser.set_defaults(command=disassemble_object)


def disassemble_object(options: Namespace) -> int:
    from pybpf.asm.disasm import disassemble
    from pybpf.cli.kernels import find
    from pybpf.errors import ObjectError
    from pybpf.spec import ObjectSpec

    spec = ObjectSpec.from_file(find(options.object))
    if options.program is not None and options.program not in spec.programs:
        raise ObjectError(f"{options.object}: no program {options.program!r}; it has {', '.join(spec.programs)}")
    for program in spec.programs.values():
        if options.program in (None, program.name):
            print(f"{program.name}: SEC({program.section!r})")
            for line in disassemble(program.instructions, byte_order=spec.byte_order):
                print(f"  {line}")
    return 0
