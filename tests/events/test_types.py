"""Which type the records of an event buffer have."""

from __future__ import annotations

import sys

import pytest

from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFBuilder
from pybpf.errors import BTFError
from pybpf.events.types import codec_of, event_codec, event_type, map_tags, named_type, suggestions


class World:
    """A small BTF: structs, typedefs and tagged maps by name."""

    def __init__(self) -> None:
        self.builder = BTFBuilder()
        self.u64 = self.builder.add_int("u64", 8, 64, 0)

    def struct(self, name: str, members: int = 2) -> int:
        fields = [(f"m{n}", self.u64, 64 * n, 0) for n in range(members)]
        return self.builder.add_struct(name, 8 * members, fields)

    def typedef(self, name: str, target: int) -> int:
        return self.builder.add_typedef(name, target)

    def map(self, name: str, *tags: str) -> int:
        var = self.builder.add_var(name, self.struct(""), 1)
        for tag in tags:
            self.builder.add_decl_tag(tag, var, -1)
        return var

    @property
    def btf(self) -> BTF:
        return BTF.from_bytes(self.builder.to_bytes())


def test_the_names_that_a_map_suggests() -> None:
    assert suggestions("execs") == [
        "execs",
        "exec",
        "execs_event",
        "execs_t",
        "exec_t",
        "event",
        "event_t",
        "data_t",
    ]
    assert suggestions("events") == ["events", "event", "events_event", "events_t", "event_t", "data_t"]
    assert suggestions("rb") == ["rb", "rb_event", "rb_t", "event", "event_t", "data_t"]
    assert suggestions("s")[0] == "s"


@pytest.mark.parametrize("name", suggestions("execs"))
def test_a_map_finds_the_struct_of_its_name(name: str) -> None:
    world = World()
    world.struct("unrelated")
    id = world.struct(name)
    assert event_type(world.btf, "execs") == id


def test_the_best_name_wins() -> None:
    world = World()
    event, singular = world.struct("event"), world.struct("exec")
    assert event_type(world.btf, "execs") == singular
    assert event_type(world.btf, "others") == event


def test_a_typedef_of_a_struct_counts_and_one_of_a_number_does_not() -> None:
    world = World()
    world.typedef("exec_t", world.u64)
    typedef = world.typedef("event_t", world.struct(""))
    assert event_type(world.btf, "execs") == typedef


def test_a_struct_and_its_own_typedef_are_one_type() -> None:
    world = World()
    struct = world.struct("event")
    world.typedef("event", struct)
    assert event_type(world.btf, "events") == struct


def test_two_structs_of_the_best_name_suggest_nothing() -> None:
    world = World()
    world.struct("exec", 2)
    world.struct("exec", 3)
    world.struct("event")
    assert event_type(world.btf, "execs") is None
    with pytest.raises(BTFError, match="2 different types"):
        named_type(world.btf, "exec")


def test_nothing_fits() -> None:
    world = World()
    world.struct("other")
    assert event_type(world.btf, "execs") is None
    assert event_codec(world.btf, "execs") == (None, False)


@pytest.mark.parametrize("text", ["event:record", "event:struct record"])
def test_a_tag_decides(text: str) -> None:
    world = World()
    world.struct("exec")
    record = world.struct("record")
    world.map("execs", "something else", text)
    btf = world.btf
    assert sorted(map_tags(btf, "execs")) == sorted(["something else", text])
    assert event_type(btf, "execs") == record
    assert event_type(btf, "execs", []) != record
    codec, strict = event_codec(btf, "execs")
    assert codec is not None and codec.c_name == "struct record" and strict
    codec, strict = event_codec(btf, "execs", tags=[])
    assert codec is not None and codec.c_name == "struct exec" and not strict


def test_a_wrong_tag_is_an_error() -> None:
    world = World()
    world.struct("event")
    with pytest.raises(BTFError, match="no type 'union event'"):
        event_type(world.btf, "events", ["event:union event"])
    with pytest.raises(BTFError, match="no type 'missing'"):
        event_type(world.btf, "events", ["event:missing"])
    with pytest.raises(BTFError, match="no type ''"):
        event_type(world.btf, "events", ["event:"])
    world.struct("other")
    with pytest.raises(BTFError, match="several tags"):
        event_type(world.btf, "events", ["event:event", "event:other"])
    assert event_type(world.btf, "events", ["event:event", "event:struct event"]) is not None


def test_tags_of_members_are_not_the_maps() -> None:
    world = World()
    struct = world.struct("event")
    world.builder.add_decl_tag("event:missing", struct, 0)
    assert event_type(world.btf, "events") == struct


def test_a_user_may_name_any_type() -> None:
    world = World()
    struct = world.struct("event")
    assert named_type(world.btf, "event") == named_type(world.btf, "struct event") == struct
    assert named_type(world.btf, "u64") == world.u64
    assert codec_of(world.btf, "u64").decode((5).to_bytes(8, sys.byteorder)) == 5
    with pytest.raises(BTFError, match="no type information"):
        codec_of(None, "event")
