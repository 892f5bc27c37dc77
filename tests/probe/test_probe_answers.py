"""The rules of answers, whatever the kernel: names, three values, what is kept, and the evidence."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from pybpf import probe, syscall
from pybpf.abi import MapType, ProgramType
from pybpf.errors import kernel_error
from pybpf.probe.answer import Answer, ask
from pybpf.probe.names import canonical, known, number_of


@pytest.mark.parametrize("name", ["ringbuf", "RINGBUF", "BPF_MAP_TYPE_RINGBUF", MapType.RINGBUF, 27])
def test_every_way_to_name_a_thing(name: str | int) -> None:
    assert number_of("map type", name) == 27


@pytest.mark.parametrize("name", ["fib_lookup", "bpf_fib_lookup", "BPF_FUNC_fib_lookup", 69])
def test_every_way_to_name_a_helper(name: str | int) -> None:
    assert number_of("helper", name) == 69


@pytest.mark.parametrize(
    ("kind", "name", "number"),
    [
        ("attach type", "BPF_TCX_INGRESS", 46),
        ("attach type", "trace_kprobe_session", 56),
        ("link type", "BPF_LINK_TYPE_XDP", 6),
        ("command", "BPF_PROG_LOAD", 5),
        ("program type", ProgramType.XDP, 6),
    ],
)
def test_names_of_other_kinds(kind: str, name: str | int, number: int) -> None:
    assert number_of(kind, name) == number


def test_a_misspelled_name_gets_a_proposal() -> None:
    with pytest.raises(ValueError, match=r"no map type is called 'ringbuff': did you mean ringbuf"):
        probe.has_map_type("ringbuff")
    with pytest.raises(ValueError, match="no helper is called"):
        probe.has_helper("xdp", "no such thing at all")
    with pytest.raises(ValueError, match="no feature is called 'teleport': there are jit"):
        probe.has_feature("teleport")
    with pytest.raises(ValueError, match="no kind of BTF is called"):
        probe.has_btf("enum65")
    with pytest.raises(ValueError, match="there is no probe for the link type 4711"):
        probe.has_link_type(4711)
    with pytest.raises(ValueError, match="there is no probe for the attach type 4711"):
        probe.has_attach_type(4711)
    with pytest.raises(ValueError, match="there is no probe for the command 4711"):
        probe.has_command(4711)


def test_aliases_are_one_thing() -> None:
    assert known("map type")["cgroup_storage_deprecated"] == known("map type")["cgroup_storage"]
    assert canonical("map type")[19] == "cgroup_storage"
    assert canonical("command")[10] == "prog_test_run"
    assert 0 not in canonical("map type") and canonical("attach type")[0] == "cgroup_inet_ingress"
    assert canonical("command")[0] == "map_create"


class Refusing:
    """A call that fails with the next errno of a list, and succeeds after the last."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)
        self.calls = 0

    def __call__(self, map_type: int, **fields: object) -> syscall.FD | None:
        self.calls += 1
        if self.numbers:
            raise kernel_error(self.numbers.pop(0), "BPF_MAP_CREATE")
        return None


@pytest.mark.parametrize(
    ("number", "verdict"),
    [
        (errno.EINVAL, "no"),
        (errno.E2BIG, "no"),
        (errno.EOPNOTSUPP, "no"),
        (524, "no"),
        (errno.EPERM, "cannot tell"),
        (errno.EACCES, "cannot tell"),
        (errno.ENOSYS, "cannot tell"),
        (errno.ENOMEM, "cannot tell"),
        (errno.EMFILE, "cannot tell"),
    ],
)
def test_what_an_errno_means(number: int, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pybpf.compat.raise_memlock", lambda: False)
    answer = ask(Refusing(number), 1)
    assert answer.verdict == str(answer) == verdict
    assert answer.is_known == (verdict != "cannot tell")
    assert not answer
    assert answer.errno == number and answer.errno_name in answer.evidence


def test_only_conclusive_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Refusing(errno.ENOMEM, errno.EMFILE, errno.EINVAL)
    monkeypatch.setattr(syscall, "map_create", call)
    assert probe.has_map_type("hash").verdict == "cannot tell"
    assert probe.has_map_type("hash").verdict == "cannot tell"
    assert [probe.has_map_type("hash").verdict for _ in range(3)] == ["no"] * 3
    assert call.calls == 3
    probe.forget()
    assert probe.has_map_type("hash") and call.calls == 4


def test_answers_by_token_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Refusing(errno.EINVAL)
    monkeypatch.setattr(syscall, "map_create", call)
    assert probe.has_map_type("hash", token_fd=7).verdict == "no"
    assert probe.has_map_type("hash", token_fd=7).verdict == "yes"
    assert probe.has_map_type("hash") and probe.has_map_type("hash") and call.calls == 3


def test_the_limit_of_locked_memory_is_lifted_once_where_it_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    lifted: list[bool] = []
    monkeypatch.setattr("pybpf.compat.raise_memlock", lambda: lifted.append(True) or True)
    assert ask(Refusing(errno.EPERM), 1).verdict == "yes"
    assert lifted == [True]


@pytest.fixture
def log_of() -> Iterator[object]:
    """A call that the verifier rejects with this log."""

    def make(text: str, number: int = errno.EACCES) -> object:
        def call(*_: object, log_level: int, log_buffer: bytearray) -> None:
            log_buffer[: len(text)] = text.encode()
            raise kernel_error(number, "BPF_PROG_LOAD")

        return call

    yield make


def test_a_refusal_with_a_log_is_the_verifiers(log_of, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("pybpf.compat.raise_memlock", lambda: False)
    assert ask(log_of(""), log="").verdict == "cannot tell"
    answer = ask(log_of("R0 !read_ok\nprocessed 1 insns\n"), log="")
    assert answer.verdict == "no"
    assert answer.evidence == "BPF_PROG_LOAD: EACCES: R0 !read_ok"
    assert ask(log_of("attach_btf_id 1 is not a typedef", errno.EINVAL), log="not a typedef").verdict == "yes"


def test_answers_as_text_and_json() -> None:
    assert repr(Answer("yes")) == "<yes>"
    assert Answer("yes", "BPF_MAP_CREATE").to_dict() == {"answer": "yes"}
    assert Answer("no", "BPF_MAP_CREATE", errno.EINVAL).to_dict() == {
        "answer": "no",
        "evidence": "BPF_MAP_CREATE: EINVAL",
    }
    assert repr(Answer("no", "open", 2, reason="why")) == "<no: open: ENOENT: why>"
