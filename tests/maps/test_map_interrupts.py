"""An interrupt in the middle of a call, of the first use, of closing: the map can be closed, and nothing is left."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from real_signals import everywhere

import pybpf
from pybpf.constants import BPF_F_MMAPABLE
from pybpf.maps.base import PREPARING
from pybpf.syscall import FD

USES: dict[str, Callable[[Any], object]] = {
    "lookup": lambda m: m[1],
    "update": lambda m: m.__setitem__(1, 5),
    "get": lambda m: m.get(1),
    "missing": lambda m: m.get(3),
    "pop": lambda m: m.pop(2, None),
    "items": lambda m: list(m.items()),
    "bool": lambda m: bool(m),
    "update_many": lambda m: m.update({1: 5, 2: 5}),
    "get_many": lambda m: m.get_many([1] * 50),
    "info": lambda m: m.info(),
}
MAKERS: dict[str, Callable[[], Any]] = {
    "hash": lambda: pybpf.HashMap(key="u32", value="u64", max_entries=8),
    "structs": lambda: pybpf.HashMap(key="u32", value="struct s { u64 a; u32 b; }", max_entries=8),
    "array": lambda: pybpf.ArrayMap(value="u64", max_entries=8),
    "mapped": lambda: pybpf.ArrayMap(value="u64", max_entries=8, flags=BPF_F_MMAPABLE),
}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def is_open(number: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{number}")


def another(made: Any, use: Callable[[Any], object]) -> Any:
    """A new map in the place of this one, used before."""
    made.close()
    made = MAKERS["hash"]()
    made[1] = made[2] = 5
    use(made)
    return made


@pytest.mark.parametrize("name", USES)
def test_in_a_call(name: str) -> None:
    use = USES[name]
    made = MAKERS["hash"]()

    def prepare() -> Callable[[], object]:
        nonlocal made
        made = another(made, use)
        return lambda: use(made)

    prepare()
    before = descriptors()
    for place in everywhere(prepare):
        assert descriptors() <= before and not PREPARING._is_owned(), place
        number = made.fileno()
        made.close()
        assert not is_open(number), place
    made.close()


@pytest.mark.parametrize("name", ["lookup", "info"])
def test_closed_while_the_traceback_is_held(name: str) -> None:
    """It holds what the call was working with."""
    use = USES[name]
    made = MAKERS["hash"]()

    def prepare() -> Callable[[], object]:
        nonlocal made
        made = another(made, use)

        def use_and_close() -> None:
            try:
                use(made)
            except BaseException:
                made.close()
                raise

        return use_and_close

    prepare()
    before = descriptors()
    for place in everywhere(prepare):
        made.close()
        assert descriptors() == before - 1, place
    made.close()


@pytest.mark.parametrize("maker", MAKERS)
def test_in_the_first_use(maker: str) -> None:
    made = MAKERS[maker]()

    def prepare() -> Callable[[], object]:
        nonlocal made
        made.close()
        made = MAKERS[maker]()
        return lambda: made.get(1)

    prepare()()
    for place in everywhere(prepare):
        assert not PREPARING._is_owned(), place
        value = {"a": 1, "b": 2} if maker == "structs" else 7
        made[1] = value
        assert made.get_many([1, 1]) == [made[1]] * 2
        assert made[1] in list(made.values())
        number = made.fileno()
        made.close()
        assert not is_open(number)
        with pytest.raises(pybpf.ClosedError):
            made[1]
        with pytest.raises(pybpf.ClosedError):
            made.get(1)
    made.close()


@pytest.mark.parametrize("maker", MAKERS)
def test_in_closing(maker: str) -> None:
    number, made = -1, None

    def prepare() -> Callable[[], object]:
        nonlocal number, made
        made = MAKERS[maker]()
        made.get(1)
        number = made.fileno()
        return made.close

    for place in everywhere(prepare):
        assert made is not None
        assert not PREPARING._is_owned(), place
        made.close()
        assert made.closed and not is_open(number), place


class TestDescriptors:
    def test_closing(self) -> None:
        fd = FD(os.open("/dev/null", os.O_RDONLY))

        def prepare() -> Callable[[], object]:
            nonlocal fd
            fd = FD(os.open("/dev/null", os.O_RDONLY))
            return fd.close

        fd.close()
        before = descriptors()
        for place in everywhere(prepare):
            fd.close()
            assert descriptors() == before, place

    def test_closing_what_is_lent(self) -> None:
        fd = FD(os.open("/dev/null", os.O_RDONLY))

        def prepare() -> Callable[[], object]:
            nonlocal fd
            fd = FD(os.open("/dev/null", os.O_RDONLY))

            def use() -> None:
                with fd.lend():
                    fd.close()

            return use

        fd.close()
        before = descriptors()
        for place in everywhere(prepare):
            fd.close()
            assert descriptors() == before, place
