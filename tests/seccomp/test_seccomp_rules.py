"""Policies: what they say, the filters that they become, names of system calls, and policies as text."""

from __future__ import annotations

import operator
import random
import struct
from collections.abc import Callable

import pytest

from pybpf import syscall
from pybpf.asm.classic import Filter, check_seccomp
from pybpf.errors import ObjectError
from pybpf.seccomp import (
    ALLOW,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    NOTIFY,
    Architecture,
    Policy,
    arg,
    errno,
    native,
    parse,
    trace,
    trap,
)
from pybpf.seccomp.listing import listing
from pybpf.seccomp.numbers import ARCHITECTURES, X32_BIT


def verdict(program: Filter, byte_order: str, number: int, audit: int, arguments: tuple[int, ...]) -> int:
    """What a filter answers to struct seccomp_data, by the interpreter (whose words are in network byte order)."""
    order = "<" if byte_order == "little" else ">"
    data = struct.pack(f"{order}IIQ6Q", number & 0xFFFFFFFF, audit, 0x1234, *arguments)
    words = struct.unpack(f"{order}16I", data)
    return program.run(struct.pack(">16I", *words))


NUMBERS = [
    ("x86_64", "openat", 257), ("x86_64", "seccomp", 317), ("x32", "openat", X32_BIT | 257), ("i386", "openat", 295),
    ("x32", "ioctl", X32_BIT | 514), ("aarch64", "openat", 56), ("arm", "openat", 322), ("arm", "cacheflush", 0xF0002),
    ("arm", "set_tls", 0xF0005), ("riscv64", "openat", 56), ("s390x", "openat", 288), ("ppc64le", "openat", 286),
    ("ppc64", "openat", 286), ("loongarch64", "openat", 56), ("mips", "openat", 4288), ("mips64el", "openat", 5247),
    ("mipsn32", "openat", 6251), ("sparc64", "openat", 284), ("alpha", "openat", 450), ("m68k", "openat", 288),
]  # fmt: skip
AUDIT = [
    ("x86_64", 0xC000003E), ("x32", 0xC000003E), ("i386", 0x40000003), ("aarch64", 0xC00000B7), ("arm", 0x40000028),
    ("riscv64", 0xC00000F3), ("s390x", 0x80000016), ("ppc64le", 0xC0000015),
]  # fmt: skip


@pytest.mark.parametrize(("name", "call", "number"), NUMBERS)
def test_numbers(name: str, call: str, number: int) -> None:
    architecture = Architecture(name)
    assert architecture.numbers[call] == number
    assert architecture.call_name(number) == call


@pytest.mark.parametrize(("name", "audit"), AUDIT)
def test_architectures(name: str, audit: int) -> None:
    assert Architecture(name).audit == audit


def test_every_architecture_has_its_calls() -> None:
    for name in ARCHITECTURES:
        architecture = Architecture(name)
        assert len(architecture.numbers) > 280, name
        assert {"read", "write", "execve", "exit_group", "seccomp", "bpf", "pidfd_getfd"} <= architecture.numbers.keys()
    assert Architecture("s390x").byte_order == "big"
    assert Architecture("arm64").name == "aarch64"
    assert native() in ARCHITECTURES
    with pytest.raises(ValueError, match="there is no architecture 'vax'; there are x86_64"):
        Architecture("vax")


def test_the_architecture_is_checked_first_and_x32_refused() -> None:
    policy = Policy(architectures=["x86_64"])
    policy.add(errno("EPERM"), "mkdir")
    assert str(policy.compile()).splitlines() == [
        "(000) ld       [4]",
        "(001) jeq      #0xc000003e      jt 2\tjf 8",
        "(002) ld       [0]",
        "(003) jge      #0x40000000      jt 4\tjf 5",
        "(004) jeq      #0xffffffff      jt 7\tjf 8",
        "(005) jge      #0x53            jt 6\tjf 7",
        "(006) jge      #0x54            jt 7\tjf 9",
        "(007) ret      #2147418112",
        "(008) ret      #-2147483648",
        "(009) ret      #327681",
    ]


ACTIONS = [ALLOW, LOG, KILL_PROCESS, KILL_THREAD, NOTIFY, errno("EPERM"), errno(0), trap(), trap(7), trace(9)]
VALUES = [0, 1, 2, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 1 << 63, (1 << 64) - 1]
VALUES += [(1 << 32) - 2, 5 << 32, 0xFFFFFFFF00000000, 0x1234567890ABC]


def random_policy(chance: random.Random, architectures: list[str], size: int) -> Policy:
    policy = Policy(chance.choice(ACTIONS), architectures=architectures, foreign=chance.choice(ACTIONS))
    calls = sorted(set.intersection(*(set(Architecture(name).numbers) for name in architectures)))
    some = chance.sample(calls, min(len(calls), max(3, size // 2)))
    for _ in range(size):
        conditions = []
        for _ in range(chance.choice([0, 0, 1, 1, 2, 3])):
            argument = arg[chance.randrange(6)]
            if chance.random() < 0.4:
                argument = argument & chance.choice([1, 0xFF, 0xFFFFFFFF, 0xFFFFFFFF00000000, 1 << 40, 0xF0000000F])
            value = chance.choice(VALUES)
            compare = chance.choice([operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
            conditions.append(compare(argument, value))
        policy.add(chance.choice(ACTIONS), *chance.sample(some, chance.choice([1, 1, 2])), *conditions)
    return policy


WORLDS = [
    ["x86_64"], ["x32"], ["x86_64", "i386"], ["x86_64", "x32", "i386"], ["aarch64", "arm"], ["s390x"], ["riscv64"],
    ["ppc64"], ["ppc64le"], ["mips64el", "mipsel", "mipsn32el"], ["mips"], ["loongarch64"], ["sparc64", "sparc"],
]  # fmt: skip


@pytest.mark.parametrize("world", WORLDS, ids="+".join)
@pytest.mark.parametrize("size", [1, 6, 40, 120])
def test_filters_do_what_the_rules_say(world: list[str], size: int) -> None:
    """Policies at random, for both byte orders: the compiled filter's answer is that of the rules."""
    chance = random.Random(f"{world} {size}")
    policy = random_policy(chance, world, size)
    program = policy.compile()
    order = policy.architectures[0].byte_order
    for architecture in policy.architectures:
        interesting = [number for rule in policy.rules for number in rule.numbers(architecture)]
        lowest = X32_BIT if architecture.name == "x32" else 0
        highest = X32_BIT - 1 if architecture.name == "x86_64" else 0xFFFFFFFE
        for _ in range(60):
            number = chance.choice([*interesting, chance.choice(interesting) + 1, lowest, highest])
            arguments = tuple(chance.choice(VALUES) for _ in range(6))
            expected = policy.decide(number, *arguments, architecture=architecture.name)
            found = verdict(program, order, number, architecture.audit, arguments)
            assert found == expected.value, (number, arguments, architecture.name)
    for audit in {audit for _, audit in ARCHITECTURES.values()} - {one.audit for one in policy.architectures}:
        assert verdict(program, order, 1, audit, (0,) * 6) == policy.foreign.value


@pytest.mark.parametrize("names", [["x86_64"], ["x32"]])
def test_the_other_half_of_x86_is_foreign(names: list[str]) -> None:
    policy = Policy(ALLOW, architectures=names, foreign=errno("ENOSYS"))
    policy.add(trap(), "read")
    program = policy.compile()
    other = 0 if names == ["x32"] else X32_BIT
    assert verdict(program, "little", other, 0xC000003E, (0,) * 6) == errno("ENOSYS").value
    assert verdict(program, "little", X32_BIT - other, 0xC000003E, (0,) * 6) == trap().value
    assert verdict(program, "little", -1, 0xC000003E, (0,) * 6) == ALLOW.value


def test_a_long_policy() -> None:
    """Jumps that are further than classic BPF reaches go over others."""
    architecture = Architecture("x86_64")
    policy = Policy(KILL_PROCESS, architectures=["x86_64"])
    calls = list(architecture.numbers)[:200]
    for position, name in enumerate(calls):
        policy.add(errno(position % 50), name, arg[0] == position, arg[1] & 0xFF != 3)
    program = policy.compile()
    assert 2000 < len(program) <= 4096
    for position, name in enumerate(calls):
        number = architecture.numbers[name]
        for second, action in ((0, errno(position % 50)), (3, KILL_PROCESS)):
            found = verdict(program, "little", number, architecture.audit, (position, second, 0, 0, 0, 0))
            assert found == action.value


def test_a_table_of_calls_is_searched_by_halving() -> None:
    architecture = Architecture("x86_64")
    policy = Policy(errno("EPERM"), architectures=["x86_64"])
    policy.add(ALLOW, *list(architecture.numbers)[::2])
    program = policy.compile()
    data = struct.pack(">16I", architecture.numbers["openat"], architecture.audit, *[0] * 14)
    assert len(program) > 180
    assert len(list(program.trace(data))) < 20


def test_too_many_rules() -> None:
    policy = Policy(architectures=["x86_64"])
    for position in range(1500):
        policy.add(errno(1), "read", arg[0] == position)
    with pytest.raises(ObjectError, match="instructions, which must be 1 to 4096"):
        policy.compile()


def test_names_that_one_architecture_lacks_are_left_out_there() -> None:
    policy = Policy(architectures=["aarch64", "arm"])
    policy.add(errno("EPERM"), "open")
    assert policy.decide("open", architecture="arm") == errno("EPERM")
    with pytest.raises(ValueError, match="aarch64 has no system call 'open'"):
        policy.decide("open")
    check_seccomp(policy.compile().instructions)


def test_what_is_wrong_with_rules() -> None:
    policy = Policy(architectures=["x86_64"])
    with pytest.raises(ObjectError, match="no architecture has a system call 'frobnicate'"):
        policy.add(ALLOW, "frobnicate")
    for number in (-5, 1 << 32):
        with pytest.raises(ObjectError, match="32 bits and no sign"):
            policy.add(ALLOW, number)
    with pytest.raises(ObjectError, match="a rule needs the name"):
        policy.add(ALLOW, arg[0] == 1)
    with pytest.raises(ObjectError, match="arguments 0 to 5, not 6"):
        policy.add(ALLOW, "read", arg[6] == 1)
    with pytest.raises(ObjectError, match="more than 64 bits"):
        policy.add(ALLOW, "read", arg[0] == 1 << 64)
    with pytest.raises(ValueError, match="no errno 'ENOTHING'"):
        errno("ENOTHING")
    with pytest.raises(ValueError, match="not in 0..4095"):
        errno(4096)
    with pytest.raises(ValueError, match="not in 0..65535"):
        trace(65536)
    with pytest.raises(ValueError, match="both byte orders"):
        Policy(architectures=["x86_64", "s390x"])
    with pytest.raises(TypeError, match="for the kernel to judge"):
        bool(arg[0] == 1)
    assert policy.rules == []


def test_text() -> None:
    policy = parse(
        """
        arch x86_64 i386
        default errno EPERM       # for the rest
        foreign kill_thread
        allow read write
        errno ENOENT openat if a2 & 0x3 != 0 and a0 == -100
        errno 5 close
        trap 3 mkdir
        trap rmdir
        trace 4 getpid
        notify connect
        log bind
        kill ptrace if a1 <= 7
        """
    )
    assert [one.name for one in policy.architectures] == ["x86_64", "i386"]
    assert (policy.default, policy.foreign) == (errno("EPERM"), KILL_THREAD)
    assert [repr(rule) for rule in policy.rules] == [
        "<Rule allow read, write>",
        "<Rule errno(ENOENT) openat if arg[2] & 0x3 != 0x0 and arg[0] == 0xffffffffffffff9c>",
        "<Rule errno(EIO) close>",
        "<Rule trap(3) mkdir>",
        "<Rule trap rmdir>",
        "<Rule trace(4) getpid>",
        "<Rule notify connect>",
        "<Rule log bind>",
        "<Rule kill_process ptrace if arg[1] <= 0x7>",
    ]
    assert repr(policy) == "<Policy 9 rules, else errno(EPERM), for x86_64, i386>"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("frob read", "no action 'frob'"),
        ("errno", "needs a name or a number"),
        ("errno EWHAT read", "no errno 'EWHAT'"),
        ("allow", "needs the name of a system call"),
        ("allow nothing_at_all", "no architecture has"),
        ("allow read if", "no condition"),
        ("allow read if a9 == 1", "no condition"),
        ("allow read if a0 = 1", "no condition"),
        ("default", "an action is missing"),
        ("default allow read", "nothing more"),
        ("arch vax", "no architecture 'vax'"),
    ],
)
def test_mistakes_in_text(line: str, message: str) -> None:
    with pytest.raises(ObjectError, match=message):
        parse(f"\n{line}\n")


def test_listing() -> None:
    policy = Policy(architectures=["x86_64", "i386"])
    policy.add(errno("EPERM"), "socket", arg[0] == 2)
    program = policy.compile()
    lines = listing(program, "little")
    assert [line.partition("; ")[2] for line in lines] == [
        *("the architecture", "x86_64", "the call", "x32", "", "socket", "connect"),
        *("arg[0], upper half", "", "arg[0], lower half", "", "i386", "the call", "socket", "socketpair"),
        *("arg[0], upper half", "", "arg[0], lower half", "", "allow", "kill_process", "errno(EPERM)"),
    ]
    assert Filter.from_text("\n".join(lines)) == program


@pytest.mark.parametrize(
    "call",
    [
        lambda: syscall.seccomp_respond(3, 1, 1 << 64),
        lambda: syscall.seccomp_respond(3, -1),
        lambda: syscall.seccomp_respond(3, 1, error=1 << 40),
        lambda: syscall.seccomp_action_available(-1),
        lambda: syscall.seccomp_is_valid(3, 1 << 64),
        lambda: syscall.seccomp_add_descriptor(3, 1, 4, number=-1),
    ],
)
def test_numbers_that_do_not_fit(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        call()
