"""Histograms as text: by powers of two or by equal steps, of maps or of events.

The look is the one that users of bcc know::

         wait (us)           : count     distribution
             0 -> 1          : 3        |************                            |
             2 -> 3          : 10       |****************************************|

Two ways to number the slots of a log2 histogram are in use. Programs of libbpf-tools, and the kernels of pybpf, count
0 and 1 in slot 0, 2 and 3 in slot 1; those of bcc (``bpf_log2l()``) count 0 and 1 in slot 1. So `first`, the slot of 0
and 1, is 0 or 1.

Rules of this module: pure, but for `of_map()` and the printing functions, which read a map.
"""

from __future__ import annotations

from math import floor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

STARS = 40
"""Width of the bars; half of that beside numbers of more than 32 bits."""
MAX_SLOTS = 1 << 16
"""More slots than that are no histogram."""
LOG2_SLOTS = 65


class Histogram:
    """Counts by slot.

    Args:
        counts: how often each slot occurred: a mapping from slot to count, or the counts in order.
        first: the slot of the least value.

    Subclasses say what the slots mean. Raises ValueError for a slot below 0 or above what is sensible, or a count that
    is negative.
    """

    max_slots = MAX_SLOTS

    def __init__(self, counts: Mapping[int, int] | Iterable[int] = (), *, first: int = 0) -> None:
        self.first = first
        self._counts: dict[int, int] = {}
        pairs = counts.items() if hasattr(counts, "items") else enumerate(counts)
        for slot, count in pairs:
            self.count(slot, count)

    def count(self, slot: int, count: int = 1) -> None:
        """Count a slot by its number. Raises ValueError."""
        if not 0 <= slot < self.max_slots or count < 0:
            raise ValueError(f"slot {slot}, count {count}: a slot is 0 to {self.max_slots - 1}, no count is negative")
        if count:
            self._counts[slot] = self._counts.get(slot, 0) + count

    def add(self, value: float, count: int = 1) -> None:
        """Count a value; of a fraction its whole part.

        Raises TypeError when it is no number; ValueError when it is negative, infinite or too large.
        """
        slot = self.slot_of(value)
        self._refuse_beyond(slot, value)
        self.count(slot, count)

    def update(self, values: Iterable[float]) -> None:
        """Count many values: a list, a column of a batch. Raises what `add()` raises, and counts none then."""
        slots: dict[int, int] = {}
        for slot in map(self.slot_of, values):
            slots[slot] = slots.get(slot, 0) + 1
        last = max(slots, default=0)
        self._refuse_beyond(last, "{} -> {}".format(*self.range_of(last)))
        for slot, count in slots.items():
            self.count(slot, count)

    def _refuse_beyond(self, slot: int, value: object) -> None:
        if slot >= self.max_slots:
            raise ValueError(f"{value} is too large: the last slot ends at {self.range_of(self.max_slots - 1)[1]}")

    def slot_of(self, value: float) -> int:
        """The number of the slot that a value belongs to. Raises TypeError, ValueError."""
        raise AssertionError("a subclass gives it")

    def range_of(self, slot: int) -> tuple[int, int]:
        """The least and the greatest value of a slot."""
        raise AssertionError("a subclass gives it")

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self._counts.values())

    @property
    def counts(self) -> list[int]:
        """The count of each slot from `first` to the last one that is not empty."""
        return [self._counts.get(slot, 0) for slot in range(self.first, max(self._counts, default=-1) + 1)]

    def rows(self, *, strip_leading_zeros: bool = False) -> Iterator[tuple[int, int, int]]:
        """Least value, greatest value and count of each slot, to the last one that is not empty."""
        skipping = strip_leading_zeros
        for slot, count in enumerate(self.counts, self.first):
            skipping = skipping and not count
            if not skipping:
                yield (*self.range_of(slot), count)

    def text(self, label: str = "value", *, strip_leading_zeros: bool = False) -> str:
        """Lines with a bar for each slot; an empty string when nothing was counted."""
        raise AssertionError("a subclass gives it")

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.total} values in {len(self.counts)} slots>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return type(self) is type(other) and list(self.rows()) == list(other.rows())

    __hash__ = None  # type: ignore[assignment]


class Log2Histogram(Histogram):
    """Slots of powers of two: 0 to 1, 2 to 3, 4 to 7, 8 to 15 and so on."""

    max_slots = LOG2_SLOTS

    def slot_of(self, value: float) -> int:
        whole = value if type(value) is int and value >= 0 else _whole(value)
        return self.first + max(whole.bit_length() - 1, 0)

    def range_of(self, slot: int) -> tuple[int, int]:
        power = slot - self.first
        return (1 << power if power > 0 else 0), (1 << power + 1) - 1

    def text(self, label: str = "value", *, strip_leading_zeros: bool = False) -> str:
        rows = list(self.rows(strip_leading_zeros=strip_leading_zeros))
        if not rows:
            return ""
        is_wide = rows[-1][1] >= 1 << 32
        width, stars = (20, STARS // 2) if is_wide else (10, STARS)
        header = f"{'':15}{label:<29}" if is_wide else f"{'':5}{label:<19}"
        most = max(count for _, _, count in rows)
        lines = [f"{header} : count     distribution"]
        for low, high, count in rows:
            lines.append(f"{low:>{width}} -> {high:<{width}} : {count:<8} |{bar(count, most, stars)}|")
        return "\n".join(lines)


class LinearHistogram(Histogram):
    """Slots of `step` values each: 0 to step - 1, step to 2 * step - 1 and so on."""

    def __init__(self, counts: Mapping[int, int] | Iterable[int] = (), *, first: int = 0, step: int = 1) -> None:
        if step < 1 or step != int(step):
            raise ValueError(f"a step of {step} is no whole number from 1 on")
        self.step = int(step)
        super().__init__(counts, first=first)

    def slot_of(self, value: float) -> int:
        whole = value if type(value) is int and value >= 0 else _whole(value)
        return self.first + whole // self.step

    def range_of(self, slot: int) -> tuple[int, int]:
        low = (slot - self.first) * self.step
        return low, low + self.step - 1

    def text(self, label: str = "value", *, strip_leading_zeros: bool = False) -> str:
        rows = list(self.rows(strip_leading_zeros=strip_leading_zeros))
        if not rows:
            return ""
        most = max(count for _, _, count in rows)
        lines = [f"     {label:<13} : count     distribution"]
        lines += [f"        {low:<10} : {count:<8} |{bar(count, most, STARS)}|" for low, _, count in rows]
        return "\n".join(lines)


def _whole(value: Any) -> int:
    """A number without its fraction. Raises TypeError when it is none; ValueError when it is negative or infinite."""
    try:
        whole: int = floor(value)
    except TypeError:
        raise TypeError(f"{value!r} is no number") from None
    except (ValueError, OverflowError):
        raise ValueError(f"{value!r} has no slot") from None
    if whole < 0:
        raise ValueError(f"{value!r} is negative")
    return whole


def bar(count: int, most: int, width: int) -> str:
    """Stars in proportion to a count, `width` for the greatest, filled up with blanks."""
    return ("*" * (width * count // most if most else 0)).ljust(width)


# Of maps


def of_map(made: Any, make: Callable[[], Histogram] = Log2Histogram) -> dict[Any, Histogram]:
    """The histograms in a map by their bucket; the only one under None when the map has no buckets.

    Args:
        made: a map whose keys are slots (an array, or a hash of integers); one whose keys are structs that end in
            the slot, the members before it being the bucket; or one whose values have an array of counts, one for
            each slot. Values of several CPUs are added up.
        make: makes an empty histogram: `Log2Histogram`, or ``lambda: LinearHistogram(step=10)``.

    Raises:
        TypeError: the map's keys and values are none of these.
        ValueError: a key is no slot.
    """
    found: dict[Any, Histogram] = {}
    for key, value in made.items():
        counts = _counts(value)
        if counts is None:
            bucket, slot = _bucket_and_slot(key)
            found.setdefault(bucket, make()).count(slot, _number(value))
        else:
            histogram = found.setdefault(key, make())
            for slot, count in enumerate(counts):
                histogram.count(slot, count)
    return found


def _number(value: Any) -> int:
    """A count: a number, the only member of a struct, or the sum of those of several CPUs."""
    if isinstance(value, int):
        return value
    from pybpf.maps.percpu import PerCPU

    if isinstance(value, PerCPU):
        return sum(map(_number, value))
    if isinstance(value, tuple) and len(value) == 1:
        return _number(value[0])
    raise TypeError(f"{value!r} is no count")


def _counts(value: Any) -> list[int] | None:
    """The counts that a value holds in an array of its own; None when it is a single count."""
    from pybpf.maps.percpu import PerCPU

    if isinstance(value, PerCPU):
        parts = [_counts(part) for part in value]
        if any(part is None for part in parts):
            return None
        return [sum(numbers) for numbers in zip(*(part or [] for part in parts), strict=True)]
    members = value if isinstance(value, tuple) else (value,)
    arrays = [member for member in members if isinstance(member, list) and all(isinstance(n, int) for n in member)]
    return arrays[0] if len(arrays) == 1 else None


def _bucket_and_slot(key: Any) -> tuple[Any, int]:
    if isinstance(key, int):
        return None, key
    if isinstance(key, tuple) and len(key) > 1 and isinstance(key[-1], int):
        return (key[0] if len(key) == 2 else tuple(key[:-1])), key[-1]
    raise TypeError(f"{key!r} is no slot, and no struct that ends in one")


def print_log2_hist(
    made: Any,
    label: str = "value",
    section: str = "Bucket",
    *,
    first: int = 0,
    section_print: Callable[[Any], str] = str,
    sort: Callable[[list[Any]], list[Any]] | None = None,
    strip_leading_zeros: bool = False,
) -> None:
    """Print a map's log2 histograms, one for each bucket, as bcc's method of this name does.

    Args:
        made: see `of_map()`.
        label: what the values are: ``"usecs"``.
        section: what the buckets are: ``"disk"``.
        first: the slot of 0 and 1: 0, or 1 where the program counts with bcc's ``bpf_log2l()``.
        section_print: gives the text of a bucket.
        sort: puts the buckets in order; by default that of the map.
        strip_leading_zeros: leave out the empty slots at the beginning.

    Raises what `of_map()` raises.
    """
    _print(of_map(made, lambda: Log2Histogram(first=first)), label, section, section_print, sort, strip_leading_zeros)


def print_linear_hist(
    made: Any,
    label: str = "value",
    section: str = "Bucket",
    *,
    step: int = 1,
    section_print: Callable[[Any], str] = str,
    sort: Callable[[list[Any]], list[Any]] | None = None,
    strip_leading_zeros: bool = False,
) -> None:
    """Print a map's linear histograms: of `step` values a slot; all else is as of `print_log2_hist()`."""
    _print(of_map(made, lambda: LinearHistogram(step=step)), label, section, section_print, sort, strip_leading_zeros)


def _print(
    found: dict[Any, Histogram],
    label: str,
    section: str,
    section_print: Callable[[Any], str],
    sort: Callable[[list[Any]], list[Any]] | None,
    strip_leading_zeros: bool,
) -> None:
    for bucket in sort(list(found)) if sort else list(found):
        if bucket is not None:
            print(f"\n{section} = {section_print(bucket)}")
        text = found[bucket].text(label, strip_leading_zeros=strip_leading_zeros)
        if text:
            print(text)
