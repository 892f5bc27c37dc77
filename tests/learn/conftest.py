"""Running an example as a reader does: a process, its lines, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import Empty, Queue

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "docs" / "learn" / "examples"
READY = "Ctrl-C ends it."
PATIENCE = 120.0
"""Seconds for one line to come; emulated machines are slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "example" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.kernel)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="bpf(2) needs root"))


class Example:
    """A running example."""

    def __init__(self, name: str, *arguments: str, before: tuple[str, ...] = (), ready: bool = True) -> None:
        line = [*before, sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments]
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._coming: Queue[str | None] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if ready:
            self.wait_for(lambda line: line.endswith(READY))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._coming.put(line.rstrip("\n"))
        self._coming.put(None)

    def wait_for(self, wanted: Callable[[str], bool], trigger: Callable[[], object] | None = None) -> str:
        """The first line from now on that is wanted. `trigger` is called until it comes."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if trigger is not None:
                trigger()
            try:
                line = self._coming.get(timeout=1 if trigger else PATIENCE)
            except Empty:
                continue
            while line is not None:
                self.lines.append(line)
                if wanted(line):
                    return line
                try:
                    line = self._coming.get_nowait()
                except Empty:
                    break
            if line is None:
                self.process.wait()
                assert self.process.stderr is not None
                pytest.fail(f"it ended: {self.process.stderr.read()}\n" + "\n".join(self.lines[-20:]))
        pytest.fail("the line did not come:\n" + "\n".join(self.lines[-20:]))

    def end(self) -> list[str]:
        """Ctrl-C: the lines that come then. The example must end well, and say nothing on the standard error."""
        self.process.send_signal(signal.SIGINT)
        return self.finish()

    def finish(self) -> list[str]:
        """Wait until it ends by itself: every line that was not yet read."""
        rest = []
        while (line := self._coming.get(timeout=PATIENCE)) is not None:
            rest.append(line)
        code = self.process.wait(timeout=PATIENCE)
        assert self.process.stderr is not None
        assert (code, self.process.stderr.read()) == (0, "")
        return rest

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@pytest.fixture
def example() -> Iterator[Callable[..., Example]]:
    """A function that starts an example, which is ended after the test."""
    with ExitStack() as stack:

        def start(name: str, *arguments: str, **options: object) -> Example:
            made = Example.__new__(Example)
            stack.callback(lambda: made.close() if hasattr(made, "_reader") else None)
            made.__init__(name, *arguments, **options)  # type: ignore[misc]
            return made

        yield start


class Network:
    """Network namespaces on one switch, each with an interface `eth0` and an address 10.77.0.N."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self._prefix = f"pybpf{os.getpid()}"

    def _ip(self, *arguments: str) -> str:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _space(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def inside(self, name: str) -> tuple[str, ...]:
        """What to put before a command to run it in that namespace; /sys stays what it is."""
        return "nsenter", f"--net=/run/netns/{self._space(name)}"

    def address(self, name: str) -> str:
        return f"10.77.0.{self.names.index(name) + 1}"

    def mac(self, name: str) -> str:
        return f"02:00:00:00:00:{self.names.index(name) + 1:02x}"

    def __enter__(self) -> Network:
        try:
            self._build()
        except OSError:
            self.__exit__()
            raise
        return self

    def _build(self) -> None:
        switch = self._space("switch")
        self._ip("netns", "add", switch)
        self._ip("-n", switch, "link", "add", "br0", "type", "bridge")
        self._ip("-n", switch, "link", "set", "br0", "up")
        for name in self.names:
            space = self._space(name)
            self._ip("netns", "add", space)
            self._ip("-n", switch, "link", "add", f"to_{name}", "type", "veth", "peer", "name", "eth0", "netns", space)
            self._ip("-n", switch, "link", "set", f"to_{name}", "master", "br0", "up")
            self._ip("-n", space, "link", "set", "eth0", "address", self.mac(name))
            self._ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            self._ip("-n", space, "link", "set", "eth0", "up")
            self._ip("-n", space, "link", "set", "lo", "up")

    def __exit__(self, *_: object) -> None:
        for name in (*self.names, "switch"):
            subprocess.run(["ip", "netns", "delete", self._space(name)], capture_output=True, check=False)

    def python(self, name: str, code: str, *arguments: str) -> str:
        """Run Python in a namespace; what it prints."""
        line = [*self.inside(name), sys.executable, "-c", code, *arguments]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def network() -> Iterator[Callable[..., Network]]:
    with ExitStack() as stack:

        def build(*names: str) -> Network:
            try:
                return stack.enter_context(Network(*names))
            except OSError as error:
                pytest.skip(f"no network namespaces can be made here: {error}")

        yield build
