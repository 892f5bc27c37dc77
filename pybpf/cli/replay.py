"""`pybpf replay`: print recorded events as `pybpf run` printed them, on any machine and without privileges."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from pybpf.events.replay import Replay


def add_command(commands: Any) -> None:
    from pybpf.cli.arguments import positive

    parser = commands.add_parser(
        "replay",
        help="print recorded events",
        description="Print the events of a recording (pybpf run --record FILE, or reader.record() in Python) as"
        " `pybpf run` prints them. It needs no privileges, and no kernel like the one that they come from.",
    )
    parser.add_argument("file", metavar="FILE", help="a .bpfcap file")
    parser.add_argument("--json", action="store_true", help="print JSON, one value a line")
    parser.add_argument("--count", type=positive, metavar="N", help="end after N events")
    parser.add_argument("--map", action="append", metavar="NAME", dest="maps", help="only events of this buffer")
    parser.add_argument(
        "--time", action="store_true", help="print when each event was read, in local time; in JSON as time_ns"
    )
    parser.add_argument("--info", action="store_true", help="print what the recording holds instead of its events")
    parser.set_defaults(command=replay)


def replay(options: Namespace) -> int:
    from pybpf.cli import EXIT_OK
    from pybpf.cli.output import Printer
    from pybpf.events.replay import Replay

    with Replay(options.file) as recording:
        if options.info:
            _print_info(recording, options.json)
            return EXIT_OK
        printer = Printer(options.json)
        left = options.count
        for name, value in recording:
            if options.maps and name not in options.maps:
                continue
            printer.event(name, value, recording.time_ns if options.time else None)
            left = None if left is None else left - 1
            if left == 0:
                return EXIT_OK
        sys.stdout.flush()
        _report(recording)
        names = {source.name for source in recording.sources.values()}
        for name in options.maps or ():
            if name not in names:
                raise ValueError(f"--map {name}: the recording has no such buffer, but {', '.join(sorted(names))}")
    return EXIT_OK


def _report(recording: Replay) -> None:
    lost = sum(count or 0 for count in recording.lost.values())
    if lost:
        print(f"pybpf: {lost} events were lost when this was recorded", file=sys.stderr)
    if not recording.is_complete:
        print(f"pybpf: {recording.path}: the recording was cut off here", file=sys.stderr)


def _print_info(recording: Replay, as_json: bool) -> None:
    """What it holds: read to the end, decoding nothing."""
    counts: dict[str, int] = {}
    for name, batch in recording.batches():
        counts[name] = counts.get(name, 0) + len(batch)
    rows = [
        {
            "map": source.name,
            "kind": source.kind,
            "type": None if source.codec is None else source.codec.c_name,
            "records": counts.get(source.name, 0),
            "lost": recording.lost.get(source.name),
        }
        for source in {source.name: source for source in recording.sources.values()}.values()
    ]
    if as_json:
        from json import dumps

        about = {name: str(value) for name, value in recording.info.items()}
        print(dumps({"info": about, "complete": recording.is_complete, "sources": rows}))
        return
    words = [f"{name} {value}" for name, value in recording.info.items() if str(value).isprintable()]
    print(f"{recording.path}: {', '.join([f'{recording.byte_order}-endian', *words])}")
    for row in rows:
        lost = "" if row["lost"] is None else f", {row['lost']} lost"
        print(f"  {row['map']}: {row['records']} records of {row['type'] or 'bytes'}{lost}")
    if not recording.is_complete:
        print("  it was cut off")
