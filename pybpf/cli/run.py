"""`pybpf run`: load an object, attach what its sections allow, print what its buffers carry.

Rules:

* The output is events, one a line. All else goes to the standard error.
* It ends with Ctrl-C, SIGTERM, --count or --duration, and leaves nothing loaded or attached.
"""

from __future__ import annotations

import signal
import sys
import time
from argparse import ArgumentTypeError
from contextlib import nullcontext

from pybpf.cli import EXIT_NOT_ATTACHED, EXIT_OK
from pybpf.cli.arguments import pair, positive, set_globals
from pybpf.errors import ObjectError
from pybpf.events import EventReader
from pybpf.events.drops import GENERAL, counter_name, total
from pybpf.maps.eventmap import EventMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from pybpf.cli.output import Printer
    from pybpf.events.records import RecordSource
    from pybpf.links import Links
    from pybpf.object import Object

FOR_EVER = 1e9
"""Seconds: some thirty years. Python's clocks and sleeps take no number that is much larger."""


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="load an object, attach it and print its events",
        description="Load an object, attach every program whose section says to what, and print the records of every "
        "ring buffer and perf buffer until Ctrl-C.",
    )
    parser.add_argument("object", metavar="OBJECT", help="a .bpf.o file, or a name that `pybpf kernels` lists")
    parser.add_argument("--json", action="store_true", help="print JSON, one value a line")
    parser.add_argument("--count", type=positive, metavar="N", help="end after N events")
    parser.add_argument("--duration", type=_seconds, metavar="S", help="end after S seconds")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="settings", help="set a global before the load"
    )
    parser.add_argument("--dump-maps", action="store_true", help="print the entries of every map at the end")
    parser.add_argument(
        "--log2-hist", action="append", default=[], metavar="MAP", help="print this map as a log2 histogram at the end"
    )
    parser.add_argument(
        "--linear-hist",
        action="append",
        default=[],
        metavar="MAP",
        help="print this map as a linear histogram at the end",
    )
    parser.add_argument(
        "--type", action="append", default=[], metavar="MAP=STRUCT", dest="types", help="what a buffer carries"
    )
    parser.add_argument("--record", metavar="FILE", help="write the events to this file too, for `pybpf replay`")
    parser.add_argument("--interface", metavar="NAME", help="attach xdp, tc and tcx programs to this network interface")
    parser.add_argument("--cgroup", metavar="PATH", help="attach cgroup programs to this cgroup")
    parser.add_argument(
        "--frequency", type=positive, metavar="HZ", help="run perf_event programs HZ times a second on each CPU"
    )
    parser.add_argument("--btf", metavar="FILE", help="relocate against these types instead of the running kernel's")
    parser.set_defaults(command=run)


def run(options: Namespace) -> int:
    from pybpf.cli.kernels import find
    from pybpf.cli.output import Printer
    from pybpf.spec import ObjectSpec

    spec = ObjectSpec.from_file(find(options.object))
    if not spec.programs:
        raise ObjectError(f"{options.object}: it has no programs")
    set_globals(spec, options.settings)
    types = dict(pair("--type", text) for text in options.types)
    for option, names in (("type", types), ("log2-hist", options.log2_hist), ("linear-hist", options.linear_hist)):
        for name in names:
            if name not in spec.maps:
                raise ValueError(f"--{option}: {options.object} has no map {name!r}")
    ending = Ending()
    printer = Printer(options.json)
    with spec.load(btf=options.btf) as obj, obj.attach(strict=False) as links:
        _attach_rest(obj, links, options)
        for program, error in links.failed:
            print(f"pybpf: not attached: {program.name}: {error}", file=sys.stderr)
        for program, reason in links.skipped:
            print(f"pybpf: not attached: {program.name}: {reason}", file=sys.stderr)
        if not links:
            print(f"pybpf: {options.object}: none of its programs could be attached", file=sys.stderr)
            return EXIT_NOT_ATTACHED
        _stream(obj, types, options, printer, ending)
        if options.dump_maps:
            _dump(obj, printer)
        _print_histograms(obj, options)
        sys.stdout.flush()
    return EXIT_OK


# Settings


def _seconds(text: str) -> float:
    """A time from 0 on; ``inf`` is for ever."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not number >= 0:  # nan too
        raise ArgumentTypeError(f"{text!r} is not a number of seconds")
    return min(number, FOR_EVER)


# Attaching


def _attach_rest(obj: Object, links: Links, options: Namespace) -> None:
    """Attach what sections leave open, to what the command line names."""
    from pybpf import constants as c
    from pybpf.errors import BPFError

    skipped = []
    for left, reason in links.skipped:
        program = obj.programs.get(left.name)
        if program is None:  # a struct_ops map
            skipped.append((left, reason))
            continue
        section = program.spec.section if program.spec is not None else ""
        try:
            if program.type_number == c.BPF_PROG_TYPE_XDP and program.attach_type_number == c.BPF_XDP:
                option, link = "--interface", options.interface and program.attach_xdp(options.interface)
            elif program.type_number == c.BPF_PROG_TYPE_SCHED_CLS:
                option, link = "--interface", options.interface and program.attach_tcx(options.interface)
            elif program.type_number == c.BPF_PROG_TYPE_PERF_EVENT:
                option, link = (
                    "--frequency",
                    options.frequency and program.attach_perf_event(frequency=options.frequency),
                )
            elif section.startswith(("cgroup", "lsm_cgroup", "sockops")):
                option, link = "--cgroup", options.cgroup and program.attach_cgroup(options.cgroup)
            else:
                option, link = "", None
        except (BPFError, ObjectError) as error:
            links.failed.append((left, error))
            continue
        if isinstance(link, list):  # one for each CPU
            links.extend(link)
        elif link:
            links.append(link)
        else:
            skipped.append((left, f"{reason}; give {option}" if option else reason))
    links.skipped[:] = skipped


# Events


class Ending:
    """SIGINT and SIGTERM end the run: inside the ``with`` block at once, by KeyboardInterrupt.

    Outside of it, while things are made or undone, the first one is kept for the block, so that nothing is left half
    made. A second one does not wait.
    """

    def __init__(self) -> None:
        self._asked = False
        self._inside = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        if self._inside or self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def __enter__(self) -> None:
        self._inside = True
        if self._asked:
            raise KeyboardInterrupt

    def __exit__(self, *exc: object) -> None:
        self._inside = False


def _stream(obj: Object, types: dict[str, str], options: Namespace, printer: Printer, ending: Ending) -> None:
    """Print events until the end that was asked for. An object without buffers just stays attached as long."""
    sources = _sources(obj, types)
    if not sources:
        try:
            with ending:
                time.sleep(FOR_EVER if options.duration is None else options.duration)
        except KeyboardInterrupt:
            pass
        return
    with EventReader(sources) as reader, reader.record(options.record) if options.record else nullcontext():
        try:
            with ending:
                _print_events(reader, options, printer)
        except KeyboardInterrupt:
            pass
        _report_losses(obj, reader)


def _print_events(reader: EventReader, options: Namespace, printer: Printer) -> None:
    end = None if options.duration is None else time.monotonic() + options.duration
    left = options.count
    while left is None or left > 0:
        wait = None if end is None else max(end - time.monotonic(), 0)
        for source, value in reader.poll(wait, left):
            printer.event(source, value)
            left = None if left is None else left - 1
        sys.stdout.flush()
        if wait == 0:
            break


def _sources(obj: Object, types: dict[str, str]) -> dict[str, RecordSource]:
    """A reader of each ring buffer and perf buffer."""
    sources: dict[str, RecordSource] = {}
    try:
        for name, made in obj.maps.items():
            if isinstance(made, EventMap):
                sources[name] = made.of(types[name]) if name in types else made.reader()
    except BaseException:
        for source in sources.values():
            source.close()
        raise
    return sources


def _report_losses(obj: Object, reader: EventReader) -> None:
    lost = sum(count or 0 for count in reader.lost.values())
    counted = {counter_name(obj.spec, name) for name in reader.sources}
    if GENERAL in obj.spec.variables and GENERAL not in counted:
        lost += total(obj.globals[GENERAL]) or 0
    if lost:
        print(f"pybpf: {lost} events were lost", file=sys.stderr)


def _dump(obj: Object, printer: Printer) -> None:
    """Print every map that can be read entry by entry."""
    from pybpf.errors import BPFError
    from pybpf.maps import MappingMap

    for made in obj.maps.values():
        if made.spec is not None and made.spec.is_internal:
            continue
        if not isinstance(made, MappingMap):
            continue
        try:
            printer.map(made)
        except BPFError as error:
            print(f"pybpf: map {made.name!r}: {error}", file=sys.stderr)


def _print_histograms(obj: Object, options: Namespace) -> None:
    """Print the maps that are histograms."""
    if not options.log2_hist and not options.linear_hist:
        return
    from pybpf.histogram import print_linear_hist, print_log2_hist

    for names, show in ((options.log2_hist, print_log2_hist), (options.linear_hist, print_linear_hist)):
        for name in names:
            try:
                show(obj.maps[name], name)
            except (TypeError, ValueError, AttributeError) as error:
                raise ValueError(f"map {name!r} is no histogram: {error}") from None
