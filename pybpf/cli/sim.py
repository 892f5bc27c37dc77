"""`pybpf sim`: run a program in the simulated kernel, without privileges."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from typing import Any

    from pybpf.cli.output import Printer
    from pybpf.sim.kernel import Kernel, Program, RunResult


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "sim",
        help="run a program in a simulated kernel",
        description="Run a program of an object file in a simulated kernel: no privileges and no Linux are needed."
        " It prints what the program returned, what it printed, and with --dump-maps what is in the maps.",
    )
    parser.add_argument("file", metavar="FILE", help="the object file, or the text of a program with --asm")
    parser.add_argument("program", nargs="?", metavar="PROGRAM", help="which program; needed when there are several")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--packet", metavar="HEX", help="one packet, in hexadecimal digits")
    what.add_argument("--pcap", metavar="FILE", help="the packets of a capture file, one run for each")
    parser.add_argument("--ctx", metavar="HEX", help="the context, in hexadecimal digits")
    parser.add_argument("--asm", action="store_true", help="FILE is the text of a program (see docs/assembler.md)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings", help="the value of a global"
    )
    parser.add_argument("--trace", action="store_true", help="show each instruction and what it writes")
    parser.add_argument("--coverage", action="store_true", help="show how often each line of C ran")
    parser.add_argument("--lcov", metavar="FILE", help="write the coverage for genhtml")
    parser.add_argument("--dump-maps", action="store_true", help="show what is in the maps at the end")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.set_defaults(command=simulate)


def simulate(options: Namespace) -> int:
    from pybpf.cli import EXIT_OK
    from pybpf.cli.output import Printer
    from pybpf.sim import Coverage

    kernel = _kernel(options)
    program = _program(kernel, options.program)
    if options.coverage or options.lcov:
        kernel.coverage = Coverage()
    context = None if options.ctx is None else _bytes(options.ctx, "--ctx")
    printer = Printer(options.json)
    for packet in _packets(options):
        if options.trace:
            result = _traced(program, packet, context)
        else:
            result = program.run(packet, ctx=context)
        _show(result, packet, options.json)
    if options.dump_maps:
        _show_maps(kernel, printer)
    if kernel.coverage is not None:
        if options.coverage:
            print(json.dumps({"coverage": kernel.coverage.to_dict()}) if options.json else kernel.coverage.text())
        if options.lcov:
            with open(options.lcov, "w", encoding="utf-8") as file:
                file.write(kernel.coverage.lcov())
    return EXIT_OK


def _kernel(options: Namespace) -> Kernel:
    from pybpf import sim
    from pybpf.cli.arguments import read_text, set_globals
    from pybpf.cli.kernels import find
    from pybpf.spec import ObjectSpec

    if options.asm:
        from pybpf.asm import assemble

        spec = assemble(read_text(options.file), name=options.file)
    else:
        spec = ObjectSpec.from_file(find(options.file))
    set_globals(spec, options.settings)
    return sim.load(spec)


def _program(kernel: Kernel, name: str | None) -> Program:
    if name is None:
        if len(kernel.programs) != 1:
            raise ValueError(f"which program? {', '.join(kernel.programs) or 'there is none'}")
        return next(iter(kernel.programs.values()))
    found = kernel.programs.get(name)
    if found is None:
        raise ValueError(f"there is no program {name!r}, but {', '.join(kernel.programs) or 'none'}")
    return found


def _packets(options: Namespace) -> Iterator[bytes | None]:
    if options.pcap is None:
        yield None if options.packet is None else _bytes(options.packet, "--packet")
        return
    from pybpf.asm.classic.pcap import Reader

    with open(options.pcap, "rb") as file:
        for packet in Reader(file):
            yield packet.data


def _bytes(text: str, option: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{option}: {text!r} is not made of hexadecimal digits") from None


def _traced(program: Program, packet: bytes | None, context: bytes | None) -> RunResult:
    with program.debug(packet, ctx=context) as debugger:
        place = ""
        going = True
        while going:
            line = debugger.line
            if line is not None and line.location != place:
                place = line.location
                print(f"; {line.text.strip()} @ {place}")
            before = debugger.registers
            text = f"{debugger.index:5}: {debugger.instruction}"
            going = debugger.step()
            after = debugger.registers if going else {}
            changed = [f"{name} = {one}" for name, one in after.items() if one.is_set and str(one) != str(before[name])]
            print(f"{text:<50} {', '.join(changed)}".rstrip())
        assert debugger.result is not None, "it has ended"
        return debugger.result


def _show(result: RunResult, packet: bytes | None, as_json: bool) -> None:
    changed = packet is not None and result.data != packet
    if as_json:
        row: dict[str, Any] = {"retval": result.retval, "steps": result.steps, "printed": result.printed}
        if changed:
            row["data"] = result.data.hex()
        if result.redirect is not None:
            row["redirect"] = str(result.redirect)
        print(json.dumps(row))
        return
    for text in result.printed:
        print(text)
    where = "" if result.redirect is None else f", redirected to {result.redirect}"
    print(f"returned {result.retval} after {result.steps} instructions{where}")
    if changed:
        print(f"packet is now {result.data.hex()}")


def _show_maps(kernel: Kernel, printer: Printer) -> None:
    """What programs have put into maps."""
    from pybpf.sim.events import EventMap
    from pybpf.sim.maps import ArrayMap, HashMap

    for name, one in kernel.maps.items():
        if isinstance(one, EventMap):
            for event in one:
                printer.event(name, event)
        elif isinstance(one, HashMap | ArrayMap) and not one.spec.is_internal:
            printer.map(one)
