"""Tries, queues, stacks, bloom filters, maps of descriptors, local storage, stack traces."""

from __future__ import annotations

import copy
import json
import os
import pickle
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from map_helpers import RETURN_0, Types, instruction, map_address, program, run, unless_unknown

from pybpf import constants as c
from pybpf import syscall
from pybpf.errors import BPFError, ClosedError, NotSupportedError
from pybpf.maps import (
    ArenaMap,
    ArrayMap,
    ArrayOfMaps,
    BloomFilter,
    CgroupArray,
    CgroupStorage,
    CpuMap,
    DevMap,
    DevMapHash,
    HashMap,
    HashOfMaps,
    LpmTrie,
    MappingMap,
    PerCpuCgroupStorage,
    Pid,
    Prefix,
    ProgArray,
    Queue,
    ReuseportArray,
    SocketArray,
    SocketHash,
    Stack,
    StackTraceMap,
    TaskStorage,
    UserRingBufferMap,
    XskMap,
    make_map,
)
from pybpf.syscall import PAGE_SIZE


class TestTrie:
    @pytest.fixture
    def routes(self, types: Types) -> Iterator[LpmTrie]:
        with LpmTrie.create(key_size=8, value_codec=types["u32"], max_entries=20, name="routes") as made:
            made[ip_network("10.0.0.0/8")] = 8
            made["10.1.0.0/16"] = 16
            made[24, b"\x0a\1\2"] = 24
            yield made

    def test_networks(self) -> None:
        """A trie whose key type says that it holds networks gives networks."""
        for kind, texts in (("ipv4", ["10.0.0.0/8", "10.1.0.0/16"]), ("ipv6", ["::/0", "2001:db8::/32"])):
            with LpmTrie(key=kind, value="u32", max_entries=20) as made:
                made.update({text: number for number, text in enumerate(texts)})
                assert sorted(made) == [ip_network(text) for text in texts]
                assert made.to_dict() == {ip_network(text): number for number, text in enumerate(texts)}
                with LpmTrie.from_id(made.id) as again:
                    assert sorted(again) == sorted(made)

    def test_lookup_finds_the_longest_prefix(self, routes: LpmTrie) -> None:
        assert routes["10.9.9.9"] == 8
        assert routes[ip_address("10.1.9.9")] == 16
        assert routes[32, bytes([10, 1, 2, 3])] == 24
        assert routes[Prefix(24, bytes([10, 1, 2, 0]))] == 24
        assert routes[struct.pack("=I", 32) + bytes([10, 1, 2, 3])] == 24
        assert routes[ip_network("10.0.0.0/9")] == 8
        assert "10.0.0.1" in routes
        assert "11.0.0.1" not in routes
        assert routes.get("11.0.0.1") is None
        with pytest.raises(KeyError):
            routes["11.0.0.1"]

    def test_keys(self, routes: LpmTrie) -> None:
        assert sorted(routes) == [(8, b"\x0a\0\0\0"), (16, b"\x0a\1\0\0"), (24, b"\x0a\1\2\0")]
        found = {key.network: value for key, value in routes.items()}
        assert found == {ip_network("10.0.0.0/8"): 8, ip_network("10.1.0.0/16"): 16, ip_network("10.1.2.0/24"): 24}
        first = min(routes)
        assert (first.bits, first.data, str(first), repr(first)) == (
            8,
            b"\x0a\0\0\0",
            "10.0.0.0/8",
            "Prefix(10.0.0.0/8)",
        )
        assert pickle.loads(pickle.dumps(first)) == copy.copy(first) == first
        del routes[first]
        assert len(routes) == 2
        with pytest.raises(KeyError):
            del routes["10.0.0.0/8"]
        routes.clear()
        assert not routes

    @pytest.mark.parametrize(
        ("key", "error", "message"),
        [
            ("nonsense", ValueError, "key of map 'routes': 'nonsense' does not appear"),
            ("10.1.2.3/8", ValueError, "host bits set"),
            ("::1", ValueError, "has 4 bytes of address, not 16"),
            ((33, b"abcd"), OverflowError, "33 does not fit a prefix length"),
            ((8, b"abcde"), ValueError, "has 4 bytes of address, not 5"),
            (b"abc", ValueError, "takes 8 bytes, not 3"),
            (5, TypeError, "takes 8 bytes, not 5"),
            (None, TypeError, "takes 8 bytes, not None"),
            (ip_interface("10.1.2.3/16"), TypeError, "give its `ip` or its `network`"),
        ],
    )
    def test_wrong_keys(self, routes: LpmTrie, key: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            routes[key]
        with pytest.raises(error, match=message):
            routes[key] = 1

    def test_ipv6_and_other_sizes(self, types: Types) -> None:
        with LpmTrie.create(key_size=20, value_codec=types["u32"], max_entries=4) as made:
            made["2001:db8::/32"] = 1
            assert made["2001:db8::5"] == 1
            assert str(next(iter(made))) == "2001:db8::/32"
        with LpmTrie.create(key_size=6, value_codec=types["u32"], max_entries=4) as made:
            made[12, b"\xab\xc0"] = 1
            assert made[16, b"\xab\xcd"] == 1
            assert repr(next(iter(made))) == "Prefix(abc0/12)"
            with pytest.raises(ValueError, match="no IP address"):
                next(iter(made)).network  # noqa: B018
        assert repr(Prefix(99, b"abcd")) == "Prefix(61626364/99)"

    def test_typed_keys(self, types: Types) -> None:
        with LpmTrie.create(key_codec=types["prefix"], value_codec=types["u32"], max_entries=4) as made:
            made["10.0.0.0/8"] = 8
            made[{"prefixlen": 16, "addr": b"\x0a\1\0\0"}] = 16
            assert made["10.1.1.1"] == 16
            assert {key.prefixlen: key.addr for key in made} == {8: b"\x0a\0\0\0", 16: b"\x0a\1\0\0"}
            assert dict(made.items()) == {(8, b"\x0a\0\0\0"): 8, (16, b"\x0a\1\0\0"): 16}

    @pytest.mark.parametrize(
        ("key", "texts"),
        [
            ("struct key { u32 prefixlen; __be32 addr; }", ["0.0.0.0/0", "10.128.0.0/9", "10.1.2.3/32"]),
            ("struct key { u32 prefixlen; u8 ip[4]; }", ["10.0.0.0/8"]),
            ("ipv4", ["10.0.0.0/8"]),
            (8, ["10.0.0.0/8"]),
            ("struct key { u32 prefixlen; struct { u32 words[4]; } addr; }", ["2001:db8::/33", "::/0"]),
            (20, ["2001:db8::/33"]),
        ],
    )
    def test_networks_of_any_key(self, key: str | int, texts: list[str]) -> None:
        with LpmTrie(key=key, value="u32", max_entries=4) as made:
            made.update({text: number for number, text in enumerate(texts)})
            wanted = {ip_network(text): number for number, text in enumerate(texts)}
            assert {made.network(key): value for key, value in made.items()} == wanted
            assert made.network(texts[0]) == ip_network(texts[0])
            with pytest.raises((TypeError, ValueError)):
                made.network("nonsense")
        with LpmTrie(key=6, value="u32", max_entries=4) as made, pytest.raises(ValueError, match="2 bytes are no IP"):
            made.network((8, b"ab"))


class TestQueues:
    @pytest.mark.parametrize(("kind", "order"), [(Queue, [1, 2, 3]), (Stack, [3, 2, 1])])
    def test_order(self, types: Types, kind: type[Queue], order: list[int]) -> None:
        with kind.create(value_codec=types["u32"], max_entries=3, name="numbers") as made:
            for number in (1, 2, 3):
                made.push(number)
            with pytest.raises(BPFError, match="E2BIG"):
                made.push(4)
            assert made.peek() == order[0]
            assert made.pop() == order[0]
            assert made.drain() == order[1:]
            assert made.drain() == []
            for use in (made.peek, made.pop):
                with pytest.raises(IndexError, match="'numbers'.* is empty"):
                    use()
            with pytest.raises(OverflowError, match="value of map 'numbers': -1"):
                made.push(-1)
        with pytest.raises(ClosedError):
            made.push(1)

    def test_replace(self, types: Types) -> None:
        with Queue.create(value_codec=types["stats"], max_entries=2) as made:
            for number in range(5):
                made.push((number, 0), replace=True)
            assert [value.packets for value in made.drain()] == [3, 4]

    def test_bytes_and_unused(self) -> None:
        with Stack.create(value_size=3, max_entries=2) as made:
            made.push(b"abc")
            assert made.pop() == b"abc"
            with pytest.raises(ValueError, match="takes 3 bytes"):
                made.push(b"ab")
            assert not hasattr(made, "items")
        with Queue.create(value_size=3, max_entries=2):
            pass

    def test_bloom_filter(self, types: Types) -> None:
        with unless_unknown("bloom filters (Linux 5.16)"):
            made = BloomFilter.create(value_codec=types["u64"], max_entries=100)
        with made:
            for number in range(50):
                made.add(number)
            made.push(99)
            assert all(number in made for number in range(50))
            assert 99 in made
            assert sum(number in made for number in range(1000, 2000)) < 300
            with pytest.raises(TypeError):
                "x" in made  # noqa: B015
        with pytest.raises(ClosedError):
            1 in made  # noqa: B015


class TestPrograms:
    def test_prog_array(self) -> None:
        with ProgArray.create(key_size=4, max_entries=4, name="jumps") as made, program() as fd:
            assert not made
            made[1] = fd
            made[3] = fd.fileno()
            number = syscall.prog_info(fd).id
            assert made[1] == made[3] == number
            assert dict(made.items()) == {1: number, 3: number}
            assert list(made) == [1, 3]
            assert len(made) == 2
            assert 0 not in made
            assert 7 not in made
            with pytest.raises(KeyError):
                made[0]
            with pytest.raises(IndexError):
                made[4]
            with pytest.raises(IndexError):
                made[4] = fd
            with pytest.raises(TypeError, match="value of map 'jumps' takes a descriptor"):
                made[0] = "program"
            with pytest.raises(OverflowError):
                made[0] = -1
            with pytest.raises(OSError, match="Bad file"):
                made[0] = 1 << 20
            del made[1]
            with pytest.raises(KeyError):
                del made[1]
            made.clear()
            assert list(made.items()) == []

    def test_ids_are_no_descriptors(self) -> None:
        with ProgArray(max_entries=4, name="jumps") as made, program() as fd:
            made[0] = fd
            ids = [made[0], *made.values(), *made.get_many([0] * 20), made.to_dict()[0], made.get(0)]
            assert set(ids) == {syscall.prog_info(fd).id}
            assert json.dumps(ids[:1]) == f"[{ids[0]}]"
            for number in ids:
                with pytest.raises(TypeError, match=f"'jumps' takes a descriptor: {number} is an id"):
                    made[1] = number
            with pytest.raises(TypeError, match="is an id"):
                made.update({1: made[0]})
            assert list(made) == [0]

    def test_update_many(self) -> None:
        with ProgArray.create(key_size=4, max_entries=8) as made, program() as fd:
            made.update(dict.fromkeys(range(5), fd))
            assert list(made) == [0, 1, 2, 3, 4]


class TestMapsOfMaps:
    @contextmanager
    def inner(self, types: Types, name: str = "inner") -> Iterator[ArrayMap]:
        with ArrayMap.create(value_codec=types["u64"], max_entries=2, name=name) as made:
            yield made

    def test_array(self, types: Types) -> None:
        with self.inner(types) as inner, ArrayOfMaps.create(key_size=4, max_entries=4, inner=inner) as made:
            inner[1] = 77
            made[2] = inner
            assert made[2] == inner.id
            assert dict(made.items()) == {2: inner.id}
            assert list(made) == [2]
            with made.open(2) as opened:
                assert type(opened) is ArrayMap
                assert opened[1] == struct.pack("Q", 77)
            with pytest.raises(KeyError):
                made.open(1)
            del made[2]
            assert len(made) == 0

    def test_hash(self, types: Types) -> None:
        with (
            self.inner(types) as inner,
            HashOfMaps.create(key_codec=types["name"], max_entries=4, inner=inner, name="maps") as made,
        ):
            made["a"] = inner
            made.update({"b": inner.fileno()})
            assert dict(made.items()) == {"a": inner.id, "b": inner.id}
            with made.open("a") as opened:
                assert opened.name == "inner"
            assert made.pop("b") == inner.id
            del made["a"]
            assert not made

    def test_inner_maps_must_be_alike(self, types: Types) -> None:
        with (
            self.inner(types) as inner,
            HashMap.create(key_size=4, value_size=4, max_entries=1) as other,
            ArrayOfMaps.create(key_size=4, max_entries=4, inner=inner) as made,
            pytest.raises(BPFError, match="EINVAL"),
        ):
            made[0] = other


@contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two sockets that are connected with each other."""
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            yield client, accepted


class TestNetwork:
    def test_devmap(self) -> None:
        index = socket.if_nametoindex("lo")
        with DevMap.create(key_size=4, max_entries=4) as made:
            made[1] = index
            assert made[1] == index
            assert dict(made.items()) == {1: index}
            with pytest.raises(KeyError):
                made[0]
            with pytest.raises(BPFError, match="EINVAL"):
                made[0] = 1 << 30
            with pytest.raises(OverflowError):
                made[0] = -1

    def test_devmap_with_programs(self) -> None:
        index = socket.if_nametoindex("lo")
        with (
            DevMapHash.create(key_size=4, value_size=8, max_entries=4) as made,
            program(prog_type=c.BPF_PROG_TYPE_XDP, attach_type=c.BPF_XDP_DEVMAP) as fd,
        ):
            made[70000] = (index, fd)
            made[5] = index
            made[6] = (index, None)
            number = syscall.prog_info(fd).id
            assert made[70000] == (index, number)
            assert dict(made.items()) == {70000: (index, number), 5: (index, 0), 6: (index, 0)}
            taken = made.snapshot()
            with pytest.raises(TypeError, match="the programs that are read from it"):
                made.restore(taken)
            with pytest.raises(TypeError, match="is an id"):
                made[7] = made[70000]
            assert len(made) == 3
            made[7] = made[5]
            del made[70000]
            made.restore(made.snapshot())
            assert dict(made.items()) == dict.fromkeys((5, 6, 7), (index, 0))

    def test_cpumap(self) -> None:
        with CpuMap.create(key_size=4, max_entries=2) as made:
            made[0] = 192
            assert made[0] == 192
            assert dict(made.items()) == {0: 192}
            del made[0]
            with pytest.raises(KeyError):
                del made[0]
            made[0] = 10
            assert made.pop(0) == 10
            made[0] = 11
            assert made.delete_many([0, 1]) == 1
            made[0] = 5
            made.clear()
            assert not made

    def test_sockets(self) -> None:
        with (
            tcp_pair() as (client, accepted),
            SocketArray.create(key_size=4, value_size=8, max_entries=4) as made,
            SocketHash.create(key_size=6, value_size=8, max_entries=4) as hashed,
        ):
            cookie = struct.unpack("Q", client.getsockopt(socket.SOL_SOCKET, 57, 8))[0]  # SO_COOKIE
            made[1] = client
            made[2] = accepted.fileno()
            assert made[1] == cookie
            assert dict(made.items())[1] == cookie
            assert sorted(made) == [1, 2]
            del made[1]
            assert list(made) == [2]
            for empty in (1, 3):
                with pytest.raises(KeyError):
                    del made[empty]
            with pytest.raises(TypeError, match="is an id"):
                made[0] = made[2]
            made[0] = client
            assert made.delete_many(range(4)) == 2
            made[3] = client
            assert made.drain() == [(3, cookie)]
            made[1] = client
            made.clear()
            assert not made
            hashed[b"client"] = client
            assert dict(hashed.items()) == {b"client": cookie}
            hashed.clear()
            assert not hashed

    @pytest.mark.parametrize("cls", [SocketArray, SocketHash])
    def test_sockets_that_are_not_read(self, cls: type[SocketArray | SocketHash]) -> None:
        options: dict[str, Any] = {} if cls is SocketArray else {"key": "u32"}
        with cls(max_entries=4, **options) as made:
            assert made.value_size == 8
        with cls(max_entries=4, value=4, **options) as made, tcp_pair() as (client, _):
            made[1] = client
            for use in (
                lambda: made[1],
                lambda: 1 in made,
                lambda: made.get(1),
                made.to_dict,
                lambda: made.get_many([1]),
            ):
                with pytest.raises(NotSupportedError, match="needs values of 8 bytes"):
                    use()
            del made[1]
            with pytest.raises(KeyError):
                del made[1]
            made[2] = client
            made.clear()
            with pytest.raises(KeyError):
                del made[2]

    def test_reuseport_sockets(self) -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            ReuseportArray.create(key_size=4, value_size=8, max_entries=4) as made,
        ):
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            udp.bind(("127.0.0.1", 0))
            made[0] = udp
            assert made[0] == struct.unpack("Q", udp.getsockopt(socket.SOL_SOCKET, 57, 8))[0]
            assert list(made) == [0]

    def test_what_cannot_be_read_back(self) -> None:
        with XskMap.create(key_size=4, max_entries=2) as made:
            with pytest.raises(NotSupportedError):
                made[0]
            assert list(made) == [0, 1]
            made.clear()

    def test_cgroups(self) -> None:
        roots = [
            line.split()[1]
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if line.split()[2] == "cgroup2"
        ]
        if not roots:
            pytest.skip("no cgroup version 2 file system is mounted")
        directory = os.open(roots[0], os.O_RDONLY)
        try:
            with CgroupArray.create(key_size=4, max_entries=2) as made:
                made[0] = directory
                with pytest.raises(NotSupportedError):
                    made[0]
                made.clear()
                with pytest.raises(KeyError):
                    del made[0]
        finally:
            os.close(directory)


def test_local_storage(types: Types) -> None:
    """Storage of sockets needs BTF in the kernel."""
    with (
        syscall.btf_load(types.data) as btf,
        socket.socket() as first,
        socket.socket() as second,
        make_map(
            syscall.map_create(
                c.BPF_MAP_TYPE_SK_STORAGE,
                key_size=4,
                value_size=16,
                map_flags=c.BPF_F_NO_PREALLOC,
                btf_fd=btf,
                btf_key_type_id=types.ids["i32"],
                btf_value_type_id=types.ids["stats"],
            ),
            name="storage",
            type_number=c.BPF_MAP_TYPE_SK_STORAGE,
            key_size=4,
            value_size=16,
            max_entries=0,
            value_codec=types["stats"],
        ) as made,
    ):
        assert isinstance(made, MappingMap)
        made[first] = (1, 2)
        assert made[first.fileno()].bytes == 2
        assert second not in made
        del made[first]
        assert first not in made
        with pytest.raises(NotSupportedError):
            list(made)


@pytest.mark.parametrize("depth", [16, 127])
def test_stack_traces(depth: int) -> None:
    """A program that takes the user stack of whoever runs it."""
    with StackTraceMap.create(value_size=8 * depth, max_entries=64) as made:
        # r0 = bpf_get_stackid(ctx, map, BPF_F_USER_STACK | BPF_F_REUSE_STACKID)
        code = map_address(2, made.fileno()) + instruction(0xB7, 3, imm=c.BPF_F_USER_STACK | c.BPF_F_REUSE_STACKID)
        code += instruction(0x85, imm=27) + RETURN_0
        with program(code, c.BPF_PROG_TYPE_TRACEPOINT) as fd, perf_tracepoint(fd):
            os.getppid()
        found = dict(made.items())
        assert found
        for number, stack in found.items():
            assert 0 < len(stack) <= depth
            assert all(isinstance(address, int) and address for address in stack)
            assert made[number] == stack
        made.clear()
        assert not made


@contextmanager
def perf_tracepoint(fd: syscall.FD) -> Iterator[None]:
    """Run a program at each getppid() of this process."""
    for root in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        path = Path(root, "events/syscalls/sys_enter_getppid/id")
        if path.exists():
            break
    else:
        pytest.skip("this kernel has no tracepoints of system calls")
    with syscall.perf_event_open(c.PERF_TYPE_TRACEPOINT, int(path.read_text()), pid=0, cpu=-1) as event:
        syscall.perf_set_bpf(event, fd)
        syscall.perf_enable(event)
        yield
        syscall.perf_disable(event)


def test_maps_without_elements() -> None:
    with unless_unknown("user ring buffers"), UserRingBufferMap.create(max_entries=PAGE_SIZE) as made:
        assert repr(made) == f"<UserRingBufferMap '' max_entries={PAGE_SIZE}>"
        assert not hasattr(made, "items")
    with unless_unknown("arenas"), ArenaMap.create(max_entries=2) as arena:
        assert arena.info().max_entries == 2
        assert arena.flags & c.BPF_F_MMAPABLE


@pytest.mark.parametrize("cls", [CgroupStorage, PerCpuCgroupStorage])
def test_storage_of_programs_at_cgroups(cls: type[MappingMap]) -> None:
    """Only a program that is attached brings elements; here there are none."""
    with cls.create(value_size=8) as made:
        assert list(made) == []
        for key in ((1, c.BPF_CGROUP_INET_INGRESS), bytes(16)):
            with pytest.raises(KeyError):
                made[key]
        with pytest.raises(ValueError, match="a pair"):
            made[1]
    with cls.create(key_size=8, value_size=8) as made, pytest.raises(KeyError):
        made[1]


def test_task_storage_by_process_number() -> None:
    with unless_unknown("storage of tasks (Linux 5.11)"):
        made = TaskStorage(value="u64", max_entries=0)
    with made:
        key = Pid(os.getpid())
        assert made.get(key) is None
        made[key] = 5
        assert made[Pid(os.getpid())] == 5
        with_descriptor = os.pidfd_open(os.getpid())
        assert made[with_descriptor] == 5
        os.close(with_descriptor)
        del made[key]
        assert key not in made
        with pytest.raises(ProcessLookupError):
            made[Pid(0x3FFFFFFF)]
        assert repr(key) == f"Pid({os.getpid()})"
        key.close()
        key.close()


def test_programs_and_maps_agree(types: Types) -> None:
    """What a program writes is what the map shows, and the other way round."""
    with HashMap.create(key_codec=types["u32"], value_codec=types["stats"], max_entries=4) as made:
        # key = 5 at r10-4; value = map_lookup_elem(map, key); if value: value->packets += 1
        code = instruction(0x62, 10, off=-4, imm=5) + map_address(1, made.fileno()) + instruction(0xBF, 2, 10)
        code += instruction(0x07, 2, imm=-4) + instruction(0x85, imm=1) + instruction(0x15, 0, off=3)
        code += instruction(0x79, 1, 0) + instruction(0x07, 1, imm=1) + instruction(0x7B, 0, 1) + RETURN_0
        with program(code) as fd:
            run(fd)
            assert 5 not in made
            made[5] = (10, 20)
            run(fd, 3)
            assert made[5] == (13, 20)
