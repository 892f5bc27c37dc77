"""The networking examples, in network namespaces of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from lacking import needs_checksums

from pybpf import probe

pytestmark = pytest.mark.kernel

PING = """
import os, socket, struct, sys
address, count = sys.argv[1], int(sys.argv[2])
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff
answers = 0
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
    sock.settimeout(float(sys.argv[3]))
    for number in range(count):
        body = struct.pack("!HH", os.getpid() & 0xffff, number) + b"pybpf learns"
        sock.sendto(struct.pack("!BBH", 8, 0, checksum(struct.pack("!BBH", 8, 0, 0) + body)) + body, (address, 0))
        try:
            while True:
                packet = sock.recv(2048)
                if packet[20] == 0 and packet[24:] == body and checksum(packet[20:]) == 0:
                    answers += 1
                    break
        except TimeoutError:
            pass
print(answers)
"""

EXCHANGE = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
    peer, _ = server.accept()
    with peer:
        client.sendall(b"hello")
        assert peer.recv(16) == b"hello"
"""


def ping(network, name: str, address: str, count: int = 2, timeout: float = 2.0) -> int:  # type: ignore[no-untyped-def]
    return int(network.python(name, PING, address, str(count), str(timeout)))


def test_hello_xdp(example, network) -> None:  # type: ignore[no-untyped-def]
    net = network("a", "b")
    running = example("ch03_hello", "eth0", before=net.inside("b"))
    assert re.match(r"program \d+, tag [0-9a-f]{16}, \d+ bytes, \d+ jited", running.lines[0])
    assert any("(db)" in line or "lock" in line for line in running.lines), "the count is not atomic"
    running.wait_for(
        lambda line: re.fullmatch(r"Hello World \d+", line) is not None, lambda: ping(net, "a", net.address("b"))
    )
    count = running.end()[-1]
    assert re.fullmatch(r"\d+ packets", count) and count != "0 packets"


def test_ping_is_dropped_and_passed(example, network) -> None:  # type: ignore[no-untyped-def]
    needs_checksums()
    net = network("a", "b")
    assert ping(net, "a", net.address("b")) == 2
    running = example("ch08_ping", "eth0", before=net.inside("b"))
    assert ping(net, "a", net.address("b"), timeout=0.5) == 0
    assert running.wait_for(lambda line: "echo requests" in line).endswith("echo requests, dropped")
    running.end()
    assert ping(net, "a", net.address("b")) == 2
    running = example("ch08_ping", "eth0", "pass", before=net.inside("b"))
    assert ping(net, "a", net.address("b")) == 2
    assert running.wait_for(lambda line: "echo requests" in line).endswith("echo requests, passed")
    running.end()


def test_socket_filter(example, network) -> None:  # type: ignore[no-untyped-def]
    needs_checksums()
    net = network("a")
    running = example("ch08_socket_filter", "lo", before=net.inside("a"))
    line = running.wait_for(lambda line: line.startswith("TCP, "), lambda: net.python("a", EXCHANGE))
    assert re.fullmatch(r"TCP, \d+ bytes, 127\.0\.0\.1 -> 127\.0\.0\.1", line)
    assert ping(net, "a", "127.0.0.1") == 2
    counts = running.end()[-1]
    assert re.search(r"\b1: [1-9]", counts) and re.search(r"\b6: [1-9]", counts), counts


@pytest.fixture
def tcx() -> None:
    if not probe.has_link_type("tcx"):
        pytest.skip(f"tcx came with Linux 6.6: {probe.has_link_type('tcx').evidence}")


@pytest.mark.usefixtures("tcx")
def test_tc(example, network) -> None:  # type: ignore[no-untyped-def]
    needs_checksums()
    net = network("a", "b")
    running = example("ch08_tc", "eth0", "tc_drop_ping", before=net.inside("b"))
    assert ping(net, "a", net.address("b"), timeout=0.5) == 0
    assert running.end()[-1].endswith("packets, 0 answered")
    assert ping(net, "a", net.address("b")) == 2
    running = example("ch08_tc", "eth0", "tc_drop", before=net.inside("b"))
    assert ping(net, "a", net.address("b"), timeout=0.5) == 0
    running.end()


@pytest.mark.usefixtures("tcx")
def test_tc_answers_by_itself(example, network) -> None:  # type: ignore[no-untyped-def]
    """The stack of `b` is told to be silent: the answers are the program's, and their checksums are right."""
    net = network("a", "b")
    silence = "open('/proc/sys/net/ipv4/icmp_echo_ignore_all', 'w').write('1')"
    net.python("b", silence)
    if ping(net, "a", net.address("b"), timeout=0.5):
        pytest.skip("the stack cannot be told to leave echo requests unanswered")
    running = example("ch08_tc", "eth0", "tc_pingpong", before=net.inside("b"))
    assert ping(net, "a", net.address("b"), count=3) == 3
    assert running.end()[-1] == "3 packets, 3 answered"


def test_tcpconnect(example) -> None:  # type: ignore[no-untyped-def]
    if not probe.has_feature("kprobes"):
        pytest.skip(probe.has_feature("kprobes").evidence)
    running = example("ch08_tcpconnect")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    line = running.wait_for(
        lambda line: "connects" in line, lambda: subprocess.run([sys.executable, "-c", EXCHANGE], check=True)
    )
    assert re.fullmatch(r"\S.* \(\d+\) of user 0 connects", line)
    running.end()


SERVER = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind(("", 5353))
    print("ready", flush=True)
    while True:
        question, sender = sock.recvfrom(100)
        sock.sendto(sys.argv[1].encode() + b" " + question, sender)
"""

CLIENT = """
import socket, sys
for port in range(20000, 20016):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", port))
        sock.settimeout(5)
        for number in range(3):
            sock.sendto(str(number).encode(), (sys.argv[1], 5353))
            answer, sender = sock.recvfrom(100)
            assert sender == (sys.argv[1], 5353), sender
            name, _, question = answer.decode().partition(" ")
            assert question == str(number)
            print(port, name)
"""


def test_balance(example, network) -> None:  # type: ignore[no-untyped-def]
    """Clients meet both backends, each port always the same, and answers come from the balancer's address."""
    net = network("client", "balancer", "one", "two")
    servers = []
    try:
        for name in ("one", "two"):
            line = [*net.inside(name), sys.executable, "-c", SERVER, name]
            servers.append(subprocess.Popen(line, stdout=subprocess.PIPE, text=True))
            assert servers[-1].stdout is not None
            assert servers[-1].stdout.readline() == "ready\n"
        hosts = [f"{net.address(name)}={net.mac(name)}" for name in ("one", "two")]
        running = example("ch08_balance", "eth0", net.address("balancer"), *hosts, before=net.inside("balancer"))
        met: dict[str, set[str]] = {}
        for row in net.python("client", CLIENT, net.address("balancer")).splitlines():
            port, name = row.split()
            met.setdefault(port, set()).add(name)
        assert len(met) == 16 and all(len(names) == 1 for names in met.values()), met
        assert {"one", "two"} == set().union(*met.values())
        assert running.end()[-1] == "48 datagrams forwarded, 48 returned"
    finally:
        for server in servers:
            server.kill()
            server.wait()
            if server.stdout is not None:
                server.stdout.close()


TLS = """
import ssl

def context(side):
    made = ssl.SSLContext(side)
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.set_ciphers("aNULL:@SECLEVEL=0")  # no certificate is at hand
    return made

to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
client = context(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(to_client, to_server)
server = context(ssl.PROTOCOL_TLS_SERVER).wrap_bio(to_server, to_client, server_side=True)
waiting = [client, server]
while waiting:
    for side in list(waiting):
        try:
            side.do_handshake()
            waiting.remove(side)
        except ssl.SSLWantReadError:
            pass
client.write(b"GET /secret")
assert server.read(100) == b"GET /secret"
"""


def python_with_system_ssl() -> str:
    """A Python that uses the system's libssl.so.3; many an installed one brings its own."""
    code = "import _ssl; print(_ssl.__file__, any('/libssl.so.3' in line for line in open('/proc/self/maps')))"
    for python in dict.fromkeys((sys.executable, "/usr/bin/python3")):
        if os.path.exists(python):
            done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
            if done.stdout.endswith("True\n"):
                return python
    pytest.skip("no Python here uses the system's libssl.so.3")


def test_ssl(example) -> None:  # type: ignore[no-untyped-def]
    if not probe.has_feature("uprobes"):
        pytest.skip(f"no uprobes: {probe.has_feature('uprobes').evidence}")
    python = python_with_system_ssl()
    running = example("ch08_ssl")

    def talk() -> None:
        subprocess.run([python, "-c", TLS], check=True)

    line = running.wait_for(lambda line: " writes 11 bytes: b'GET /secret'" in line, talk)
    assert re.fullmatch(r"python\S* \(\d+\) writes 11 bytes: b'GET /secret'", line)
    running.wait_for(lambda line: " reads 11 bytes: b'GET /secret'" in line, talk)
    running.end()
