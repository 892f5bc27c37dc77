"""`pybpf prog`: programs as text: of object files (`disasm`) and of the kernel (`dump`)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from pybpf.program import Program


def add_command(commands: Any) -> None:
    parser = commands.add_parser("prog", help="show programs, of a file or of the kernel, as text")
    nouns = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    disasm = nouns.add_parser("disasm", help="print the instructions of an object's programs, with the lines of C")
    disasm.add_argument("object", metavar="OBJECT", help="a .bpf.o file, or a name that `pybpf kernels` lists")
    disasm.add_argument("program", nargs="?", metavar="PROGRAM", help="one function; all when it is left out")
    disasm.add_argument("--llvm", action="store_true", help="as llvm-objdump writes instructions")
    disasm.set_defaults(command=disassemble_object)

    dump = nouns.add_parser("dump", help="print a program that is loaded, with the lines of C")
    dump.add_argument("program", metavar="PROGRAM", help="its id, its name, or the path where it is pinned")
    dump.add_argument("--jited", action="store_true", help="the machine code (needs the package capstone)")
    dump.set_defaults(command=dump_program)

    asm = nouns.add_parser("asm", help="assemble text; print it, and let the verifier see it")
    asm.add_argument("source", metavar="FILE", help="assembly (see docs/assembler.md); - is the standard input")
    asm.add_argument("--section", default="", help='of the first function, as in SEC("xdp")')
    asm.add_argument("--load", action="store_true", help="let the verifier see it")
    asm.set_defaults(command=assemble_file)


def disassemble_object(options: Namespace) -> int:
    from pybpf.asm.listing import function_lines
    from pybpf.cli.kernels import find
    from pybpf.errors import ObjectError
    from pybpf.spec import ObjectSpec

    spec = ObjectSpec.from_file(find(options.object))
    names = [function.name for function in spec.functions]
    if options.program is not None and options.program not in names:
        raise ObjectError(f"{options.object}: no function {options.program!r}; it has {', '.join(names)}")
    for function in spec.functions:
        if options.program in (None, function.name):
            print(f"{function.name}: SEC({function.section!r})")
            for line in function_lines(spec, function, syntax="llvm" if options.llvm else "kernel"):
                print(f"  {line}")
    return 0


def open_program(name: str) -> Program:
    """A loaded program by its id, the path of its pin, or its name.

    Raises:
        BPFNotFoundError: there is none.
        ValueError: several have the name.
    """
    from pybpf.program import Program

    if name.isdecimal():
        return Program.from_id(int(name))
    return Program.open_pinned(name) if "/" in name else Program.from_name(name)


def dump_program(options: Namespace) -> int:
    with open_program(options.program) as program:
        for line in program.disassemble(jited=options.jited):
            print(line)
    return 0


def assemble_file(options: Namespace) -> int:
    from pybpf.asm.build import assemble
    from pybpf.asm.listing import function_lines
    from pybpf.cli.arguments import read_text

    spec = assemble(read_text(options.source), options.section)
    for function in spec.functions:
        print(f"{function.name}: SEC({function.section!r})")
        for line in function_lines(spec, function):
            if not line.startswith(";"):
                print(f"  {line}")
    if options.load:
        with spec.load() as loaded:
            print(f"loaded: {', '.join(loaded.programs)}")
    return 0
