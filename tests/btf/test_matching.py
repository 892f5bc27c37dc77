"""Likeness of types: the loose rules, the strict ones, both ways round where it matters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from core_types import ORDERS, SIGNED, Types

from pybpf.btf.matching import fields_compatible, types_compatible, types_match

Make = Callable[[Types], int]

INT: Make = lambda t: t.s32  # noqa: E731  # the tables below are of such makers
UNSIGNED: Make = lambda t: t.u32  # noqa: E731
WIDE: Make = lambda t: t.s64  # noqa: E731


def ptr(to: Make) -> Make:
    return lambda t: t.add_ptr(to(t))


def array(of: Make, count: int) -> Make:
    return lambda t: t.array(of(t), count)


def struct(name: str, **members: Make) -> Make:
    return lambda t: t.struct(name, *((key, make(t), index * 8) for index, (key, make) in enumerate(members.items())))


def union(name: str, **members: Make) -> Make:
    return lambda t: t.union(name, *((key, make(t), 0) for key, make in members.items()))


def enum(name: str, *names: str, size: int = 4) -> Make:
    return lambda t: t.add_enum(name, size, False, [(value, index) for index, value in enumerate(names)])


def enum64(name: str, *names: str, size: int = 8) -> Make:
    return lambda t: t.add_enum64(name, size, False, [(value, index) for index, value in enumerate(names)])


def function(result: Make, *params: Make) -> Make:
    return lambda t: t.function(result(t), *(param(t) for param in params))


def typedef(name: str, of: Make) -> Make:
    return lambda t: t.add_typedef(name, of(t))


def const(of: Make) -> Make:
    return lambda t: t.add_const(of(t))


def tagged(of: Make) -> Make:
    return lambda t: t.add_type_tag("rcu", t.add_volatile(of(t)))


def fwd(name: str, is_union: bool = False) -> Make:
    return lambda t: t.add_fwd(name, is_union)


def floating(size: int) -> Make:
    return lambda t: t.add_float("double", size)


def odd_int(t: Types) -> int:
    return t.add_int("int", 4, 5, encoding=SIGNED, bit_offset=2)


def void(t: Types) -> int:
    return 0


def func(t: Types) -> int:
    return t.add_func("f", t.function(0))


S = struct("s", a=INT)

FIELDS = [
    (INT, WIDE, True), (INT, UNSIGNED, True), (INT, const(typedef("x", tagged(WIDE))), True), (INT, ptr(INT), False),
    (INT, odd_int, False), (odd_int, INT, False), (INT, enum("e", "A"), False), (INT, floating(4), False),
    (ptr(INT), ptr(S), True), (ptr(INT), const(ptr(void)), True),
    (S, struct("other", b=WIDE), True), (S, union("u", a=INT), True), (S, fwd("s"), False),
    (array(INT, 4), array(WIDE, 9), True), (array(INT, 4), INT, False), (array(INT, 4), array(ptr(INT), 4), False),
    (array(array(INT, 2), 4), array(INT, 8), False),
    (enum("e", "A"), enum("e___x", "B"), True), (enum("e", "A"), enum("f", "A"), False),
    (enum("", "A"), enum("f", "A"), True),
    (enum("e", "A"), enum64("e", "A"), True), (enum("e", "A"), enum64("", "A"), True), (enum64("e"), enum("f"), False),
    (fwd("s"), fwd("s___y"), True), (fwd("s"), fwd("t"), False),
    (floating(4), floating(8), True), (func, func, False), (void, void, False),
]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("local", "target", "alike"), FIELDS)
def test_fields_compatible(order: str, local: Make, target: Make, alike: bool) -> None:
    ours, theirs = Types(order), Types(order)
    local_id, target_id = local(ours), target(theirs)
    assert fields_compatible(ours.btf(), local_id, theirs.btf(), target_id) is alike


TYPES = [
    (INT, WIDE, True), (INT, odd_int, False), (INT, const(INT), False), (const(INT), const(WIDE), True),
    (typedef("a", INT), typedef("b", typedef("c", WIDE)), True), (typedef("a", INT), INT, False),
    (typedef("a", INT), typedef("a", ptr(INT)), False),
    (S, struct("s", b=WIDE), True), (S, union("s", a=INT), False), (S, fwd("s"), False),
    (fwd("s"), fwd("s", True), True),
    (enum("e", "A"), enum64("e", "B"), True), (enum64("e", "A"), enum("e", "B"), True), (void, void, True),
    (ptr(S), ptr(struct("t", b=INT)), True), (ptr(S), ptr(union("s", a=INT)), False), (ptr(S), ptr(fwd("s")), False),
    (ptr(const(void)), ptr(void), True), (ptr(void), ptr(INT), False), (ptr(const(INT)), ptr(WIDE), True),
    (array(INT, 3), array(WIDE, 5), True), (array(INT, 3), ptr(INT), False), (array(S, 3), array(INT, 3), False),
    (function(INT, ptr(S), INT), function(WIDE, ptr(S), UNSIGNED), True),
    (function(INT, ptr(S), INT), function(INT, ptr(S)), False),
    (function(INT, ptr(S)), function(INT, ptr(INT)), False),
    (function(INT, ptr(S)), function(ptr(S), ptr(S)), False),
    (function(void, ptr(function(INT, INT))), function(void, ptr(function(INT, ptr(INT)))), False),
    (function(void), function(void), True), (floating(8), floating(8), False), (func, func, False),
]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("local", "target", "alike"), TYPES)
def test_types_compatible(order: str, local: Make, target: Make, alike: bool) -> None:
    ours, theirs = Types(order), Types(order)
    local_id, target_id = local(ours), target(theirs)
    assert types_compatible(ours.btf(), local_id, theirs.btf(), target_id) is alike


MATCHES = [
    (INT, INT, True), (INT, WIDE, False), (INT, UNSIGNED, False), (const(INT), INT, True), (void, void, True),
    (typedef("a", INT), typedef("b", INT), True),
    (S, struct("s", x=WIDE, a=INT), True), (S, struct("s___v2", a=INT), True), (S, struct("t", a=INT), False),
    (S, struct("s", b=INT), False), (S, struct("s", a=WIDE), False), (S, union("s", a=INT), False),
    (struct("s", a=INT, b=INT), S, False), (struct("s", a___x=INT), S, True), (S, fwd("s"), False),
    (struct("s", a=S), struct("s", a=struct("s", a=INT, b=INT)), True),
    (struct("s", a=struct("in", x=INT)), struct("s", a=struct("in", x=WIDE)), False),
    (struct("s", p=ptr(struct("in", x=INT))), struct("s", p=ptr(struct("in", y=WIDE))), True),
    (struct("s", p=ptr(struct("in", x=INT))), struct("s", p=ptr(struct("out", x=INT))), False),
    (struct("s", p=ptr(struct("in", x=INT))), struct("s", p=ptr(fwd("in"))), True),
    (struct("s", p=ptr(struct("in", x=INT))), struct("s", p=ptr(fwd("in", True))), False),
    (struct("s", p=ptr(union("in", x=INT))), struct("s", p=ptr(fwd("in", True))), True),
    (struct("s", p=ptr(struct("in", x=INT))), struct("s", p=ptr(union("in", x=INT))), False),
    (struct("s", p=ptr(fwd("in"))), struct("s", p=ptr(struct("in", x=INT))), True),
    (struct("s", p=ptr(fwd("in"))), struct("s", p=ptr(union("in", x=INT))), False),
    (struct("s", p=ptr(fwd("in", True))), struct("s", p=ptr(union("in", x=INT))), True),
    (ptr(fwd("in")), ptr(fwd("in")), True), (ptr(fwd("in")), ptr(fwd("in", True)), False),
    (fwd("s"), fwd("s"), True), (fwd("s"), fwd("s", True), False), (fwd("s"), S, False),
    (ptr(INT), ptr(WIDE), False), (ptr(S), ptr(S), True), (ptr(S), array(S, 1), False),
    (array(INT, 3), array(INT, 3), True), (array(INT, 3), array(INT, 4), False), (array(INT, 3), array(WIDE, 3), False),
    (enum("e", "A", "B"), enum("e", "C", "B", "A"), True), (enum("e", "A", "B"), enum("e", "A"), False),
    (enum("e", "A"), enum("e", "B"), False), (enum("e", "A___x"), enum64("e", "A___y", size=4), True),
    (enum("e", "A"), enum64("e", "A"), False), (enum("e", "A"), INT, False), (enum("e", "A"), enum("f", "A"), False),
    (function(INT, ptr(S)), function(INT, ptr(struct("s", b=INT))), True),
    (function(INT, ptr(S)), function(INT, ptr(struct("t", a=INT))), False),
    (function(INT, INT), function(INT, INT, INT), False), (function(INT), function(WIDE), False),
    (function(INT, INT), function(INT, WIDE), False), (floating(8), floating(8), False), (func, func, False),
]  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("local", "target", "alike"), MATCHES)
def test_types_match(order: str, local: Make, target: Make, alike: bool) -> None:
    ours, theirs = Types(order), Types(order)
    local_id, target_id = local(ours), target(theirs)
    assert types_match(ours.btf(), local_id, theirs.btf(), target_id) is alike


def anonymous(**members: Make) -> Make:
    return struct("", **members)


def test_anonymous_members_match_any_anonymous_member() -> None:
    ours, theirs = Types(), Types()
    local_id = ours.struct("s", ("", anonymous(b=INT)(ours), 0), ("", anonymous(a=INT)(ours), 8))
    target_id = theirs.struct("s", ("", anonymous(a=INT)(theirs), 0), ("", anonymous(c=INT, b=INT)(theirs), 8))
    assert types_match(ours.btf(), local_id, theirs.btf(), target_id)
    assert not types_match(theirs.btf(), target_id, ours.btf(), local_id)


def test_many_anonymous_members_of_many_levels_take_no_time() -> None:
    """Without remembered answers this would take 4**30 steps."""
    sides = []
    for last in (INT, WIDE):
        types = Types()
        inner = last(types)
        for _ in range(30):
            inner = types.struct("", ("", inner, 0), ("", inner, 8), ("", inner, 16), ("", inner, 24))
        sides.append((types.btf(), types.struct("s", ("", inner, 0)), types.btf()))
    (ours, local_id, _), (theirs, target_id, _) = sides
    assert not types_match(ours, local_id - 1, theirs, target_id - 1)


@pytest.mark.parametrize("depth", [5, 100, 5000])
def test_long_chains_of_pointers(depth: int) -> None:
    types = Types()
    inner = types.s32
    for _ in range(depth):
        inner = types.add_ptr(inner)
    btf = types.btf()
    assert types_compatible(btf, inner, btf, inner)
    assert types_match(btf, inner, btf, inner) is (depth < 32)
