"""Histograms: slots, text, maps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pybpf
from pybpf.btf.records import make_record_class
from pybpf.histogram import Histogram, LinearHistogram, Log2Histogram, of_map, print_linear_hist, print_log2_hist
from pybpf.maps.percpu import PerCPU

LOG2_TEXT = """\
     usecs               : count     distribution
         0 -> 1          : 1        |****                                    |
         2 -> 3          : 0        |                                        |
         4 -> 7          : 10       |****************************************|
         8 -> 15         : 5        |********************                    |"""

LINEAR_TEXT = """\
     size          : count     distribution
        0          : 2        |****************************************|
        1          : 1        |********************                    |
        2          : 0        |                                        |
        3          : 1        |********************                    |"""

WIDE_TEXT = """\
               nsecs                         : count     distribution
          4294967296 -> 8589934591           : 3        |********************|"""


def test_log2_text() -> None:
    histogram = Log2Histogram([1, 0, 10, 5, 0])
    assert histogram.text("usecs") == LOG2_TEXT
    assert str(histogram).startswith("     value               : count")
    assert histogram.text(strip_leading_zeros=True) == histogram.text()
    assert Log2Histogram({1: 1, 3: 10, 4: 5}, first=1).text("usecs") == LOG2_TEXT
    assert repr(histogram) == "<Log2Histogram: 16 values in 4 slots>"


def test_linear_text() -> None:
    assert LinearHistogram([2, 1, 0, 1]).text("size") == LINEAR_TEXT
    wide = LinearHistogram(step=10)
    wide.update([0, 9, 10, 35])
    assert list(wide.rows()) == [(0, 9, 2), (10, 19, 1), (20, 29, 0), (30, 39, 1)]


def test_wide_numbers() -> None:
    histogram = Log2Histogram()
    histogram.add(1 << 32, 3)
    assert histogram.text("nsecs", strip_leading_zeros=True) == WIDE_TEXT
    assert len(histogram.text("nsecs").splitlines()) == 34
    narrow = Log2Histogram()
    narrow.add((1 << 32) - 1)
    assert narrow.text().splitlines()[-1].startswith("2147483648 -> 4294967295 : 1 ")


def test_nothing_counted_is_no_text() -> None:
    for empty in (Log2Histogram(), LinearHistogram(), Log2Histogram([0, 0])):
        assert empty.text() == "" and list(empty.rows()) == [] and empty.total == 0


def test_every_count_shows_as_stars_in_proportion() -> None:
    lines = LinearHistogram([1000, 24, 25, 0]).text().splitlines()[1:]
    assert [line.count("*") for line in lines] == [40, 0, 1]


@pytest.mark.parametrize("first", [0, 1])
@settings(deadline=None)
@given(value=st.integers(0, (1 << 64) - 1))
def test_a_value_is_in_the_range_of_its_slot(first: int, value: int) -> None:
    histogram = Log2Histogram(first=first)
    low, high = histogram.range_of(histogram.slot_of(value))
    assert low <= value <= high
    assert histogram.slot_of(0) == histogram.slot_of(1) == first
    if value > 1:
        assert low & (low - 1) == 0 and high == 2 * low - 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 1 << 20)), st.integers(1, 1000))
def test_updating_counts_everything_once(values: list[int], step: int) -> None:
    for one, other in (
        (Log2Histogram(), Log2Histogram()),
        (LinearHistogram(step=1 << 10), LinearHistogram(step=1 << 10)),
    ):
        one.update(values)
        for value in values:
            other.add(value)
        assert one == other
        assert one.total == len(values) == sum(one.counts)


@pytest.mark.parametrize(
    "use", [lambda h: h.add(-1), lambda h: h.count(-1), lambda h: h.count(70000), lambda h: h.count(1, -1)]
)
@pytest.mark.parametrize("made", [Log2Histogram, LinearHistogram])
def test_what_cannot_be_counted(made: type[Histogram], use: Any) -> None:
    with pytest.raises(ValueError):
        use(made())


@pytest.mark.parametrize("made", [Log2Histogram, LinearHistogram])
def test_fractions_count_as_their_whole_part(made: type[Histogram]) -> None:
    histogram, whole = made(), made()
    for value in (0.9, 3.999, 1000 / 3):
        histogram.add(value)
    histogram.update([2.0, 7.5])
    whole.update([0, 3, 333, 2, 7])
    assert histogram == whole
    assert histogram.text() == whole.text()


@pytest.mark.parametrize("made", [Log2Histogram, LinearHistogram])
@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("5", TypeError, "'5' is no number"),
        (None, TypeError, "None is no number"),
        (float("nan"), ValueError, "nan has no slot"),
        (float("inf"), ValueError, "inf has no slot"),
        (-0.5, ValueError, "-0.5 is negative"),
        (1 << 70, ValueError, "1180591620717411303424 .*is too large: the last slot ends at"),
    ],
)
def test_what_is_refused_is_named(made: type[Histogram], value: Any, error: type[Exception], message: str) -> None:
    histogram = made()
    with pytest.raises(error, match=message):
        histogram.add(value)
    with pytest.raises(error, match=message):
        histogram.update([1, value])
    assert histogram.total == 0


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="a step of 1.5"):
        LinearHistogram(step=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a step of 0"):
        LinearHistogram(step=0)
    with pytest.raises(ValueError, match="slot 65"):
        Log2Histogram({65: 1})
    assert Log2Histogram() != LinearHistogram()
    assert (Log2Histogram() == 3) is False


# Maps


Key = make_record_class("key", ("disk", "slot"))
Deep = make_record_class("key", ("disk", "flags", "slot"))
Slots = make_record_class("hist", ("slots",), hashable=False)
Count = make_record_class("count", ("n",))


def record(kind: Any, *values: Any) -> Any:
    return tuple.__new__(kind, values)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ({0: 1, 2: 10, 3: 5}, {None: [1, 0, 10, 5]}),
        ({0: PerCPU([1, 0]), 1: PerCPU([2, 3])}, {None: [1, 5]}),
        ({0: record(Count, 4)}, {None: [4]}),
        (
            {record(Key, "sda", 0): 1, record(Key, "sdb", 1): 2, record(Key, "sda", 2): 3},
            {"sda": [1, 0, 3], "sdb": [0, 2]},
        ),
        ({record(Deep, "sda", 7, 1): 1}, {("sda", 7): [0, 1]}),
        ({"sda": record(Slots, [1, 2]), "sdb": [0, 3]}, {"sda": [1, 2], "sdb": [0, 3]}),
        ({5: PerCPU([record(Slots, [1, 2]), record(Slots, [3, 4])])}, {5: [4, 6]}),
        ({}, {}),
    ],
)
def test_shapes_of_maps(items: dict[Any, Any], expected: dict[Any, list[int]]) -> None:
    assert {bucket: histogram.counts for bucket, histogram in of_map(items).items()} == expected


@pytest.mark.parametrize("items", [{"sda": 1}, {0: "text"}, {0: 1.5}, {record(Key, 1, "x"): 1}])
def test_maps_that_are_no_histograms(items: dict[Any, Any]) -> None:
    with pytest.raises(TypeError):
        of_map(items)


def test_buckets_are_printed_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    items = {record(Key, b, 1): 1 for b in (3, 1, 2)}
    print_log2_hist(items, "usecs", "disk", sort=sorted, section_print=lambda bucket: f"sd{bucket}")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("disk")] == ["disk = sd1", "disk = sd2", "disk = sd3"]
    assert lines.count("     usecs               : count     distribution") == 3
    print_linear_hist({0: 2, 1: 1, 3: 1}, "size")
    assert capsys.readouterr().out == LINEAR_TEXT + "\n"


@pytest.mark.kernel
@pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")
class TestLive:
    def test_of_a_map(self) -> None:
        with pybpf.maps.ArrayMap.create(key_size=4, value_size=8, max_entries=8) as made:
            for slot, count in ((0, 1), (2, 10), (3, 5)):
                made[slot.to_bytes(4, sys.byteorder)] = count.to_bytes(8, sys.byteorder)
            with pytest.raises(TypeError, match="no count"):
                of_map(made)  # untyped: bytes

    def test_the_command(self) -> None:
        command = [sys.executable, "-m", "pybpf", "run", "runqlat", "--duration", "0.5", "--log2-hist", "wait_us_log2"]
        root = str(Path(__file__).parents[1])
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=root)
        lines = done.stdout.splitlines()
        assert lines[0] == "     wait_us_log2        : count     distribution"
        assert lines[1].startswith("         0 -> 1          : ")
        assert any("*" * 40 in line for line in lines)
        wrong = subprocess.run(
            [*command[:5], "--duration", "0", "--log2-hist", "x"], capture_output=True, text=True, cwd=root
        )
        assert wrong.returncode == 2 and "--log2-hist: runqlat has no map 'x'" in wrong.stderr


def test_negative_values_are_refused_whatever_the_first_slot() -> None:
    histogram = LinearHistogram(first=1, step=10)
    with pytest.raises(ValueError, match="-5 is negative"):
        histogram.add(-5)
    assert histogram.total == 0
