"""`pybpf classic`: classic filters: assemble, disassemble, run over packets, capture."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator
    from typing import Any

    from pybpf.asm.classic import Filter, Packet

FORMS = ("ddd", "dd", "d", "line", "source", "ebpf")


def add_command(commands: Any) -> None:
    from pybpf.cli.arguments import positive

    parser = commands.add_parser("classic", help="classic BPF: assemble, disassemble, run, capture")
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, form, text in (
        ("asm", "ddd", "assemble a filter"),
        ("disasm", "d", "print a filter as text"),
    ):
        convert = _filter_parser(verbs, name, f"{text}; any form is read")
        convert.add_argument(
            "--form",
            choices=FORMS,
            default=form,
            help="d, dd, ddd: as tcpdump prints it; line: as bpf_asm does; "
            "source: with labels; ebpf: translated (default: %(default)s)",
        )
        convert.add_argument("--no-check", action="store_true", help="do not see whether the kernel would take it")
        convert.set_defaults(command=convert_filter)

    run = _filter_parser(verbs, "run", "run a filter over packets, without the kernel")
    where = run.add_mutually_exclusive_group(required=True)
    where.add_argument("--pcap", metavar="FILE", help="the packets of a capture file")
    where.add_argument("--packet", metavar="HEX", help="one packet, in hexadecimal digits")
    run.add_argument("--trace", action="store_true", help="show the registers after each instruction")
    run.set_defaults(command=run_filter)

    capture = _filter_parser(verbs, "capture", "show the packets that pass a filter in the kernel")
    capture.add_argument("--interface", default="", metavar="NAME", help="one interface; all when it is left out")
    capture.add_argument("--count", type=positive, metavar="N", help="end after N packets")
    capture.add_argument("--write", metavar="FILE", help="write them to a capture file")
    capture.set_defaults(command=capture_packets)


def _filter_parser(verbs: Any, name: str, text: str) -> ArgumentParser:
    parser: ArgumentParser = verbs.add_parser(name, help=text)
    parser.add_argument("filter", metavar="FILE", help="a filter in any form; - is the standard input")
    parser.add_argument(
        "--define", action="append", default=[], metavar="NAME=NUMBER", help="a name for a number in the filter"
    )
    return parser


def read_filter(options: Namespace) -> Filter:
    """The filter that the options name. Raises ObjectError, OSError, ValueError."""
    from pybpf.asm.classic import Filter
    from pybpf.cli.arguments import pair, read_text

    names = {}
    for definition in options.define:
        name, value = pair("--define", definition)
        try:
            names[name] = int(value, 0)
        except ValueError:
            raise ValueError(f"--define {definition}: {value!r} is no number") from None
    return Filter.parse(read_text(options.filter), names)


def convert_filter(options: Namespace) -> int:
    program = read_filter(options)
    if not options.no_check:
        program.check()
    if options.form == "ebpf":
        from pybpf.asm.build import assemble
        from pybpf.asm.disasm import disassemble

        (function,) = assemble(program.translate()).functions
        print("\n".join(disassemble(function.instructions)))
    elif options.form == "d":
        print(program)
    else:
        convert = {"ddd": program.to_ddd, "dd": program.to_dd, "line": program.to_line, "source": program.source}
        print(convert[options.form]().rstrip("\n"))
    return 0


def packets(options: Namespace) -> Iterator[Packet]:
    from pybpf.asm.classic import Packet
    from pybpf.asm.classic.pcap import Reader

    if options.packet is not None:
        yield Packet(bytes.fromhex(options.packet))
        return
    with open(options.pcap, "rb") as file:
        for captured in Reader(file):
            yield Packet(captured.data, length=captured.length)


def run_filter(options: Namespace) -> int:
    program = read_filter(options)
    program.check()
    passed = total = 0
    for packet in packets(options):
        total += 1
        result = 0
        for step in program.trace(packet):
            if options.trace:
                print(step)
            result = step.result or 0
        passed += bool(result)
        print(f"packet {total}: {len(packet.data)} bytes: {f'pass {result}' if result else 'drop'}")
    print(f"{passed} of {total} packets pass")
    return 0


def capture_packets(options: Namespace) -> int:
    from pybpf.asm.classic.pcap import Writer
    from pybpf.capture import Capture

    with Capture(options.interface, read_filter(options)) as capture:
        file = open(options.write, "wb", buffering=0) if options.write else None  # noqa: SIM115  (closed below)
        try:
            writer = Writer(file) if file else None
            for number, packet in enumerate(capture, 1):
                if writer:
                    writer.write(packet)
                else:
                    print(f"{packet.time:.6f} {packet.length} bytes {packet.data.hex()}", flush=True)
                if number == options.count:
                    break
        finally:
            if file:
                file.close()
    return 0
