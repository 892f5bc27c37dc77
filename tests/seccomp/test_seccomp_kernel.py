"""seccomp in the kernel: children that are really denied, killed, asked about."""

from __future__ import annotations

import ctypes
import errno as numbers
import mmap
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "asm"))

from classic_samples import random_program
from threads import run_all
from thrift import few

from pybpf import syscall
from pybpf.asm.classic import Filter, check_seccomp
from pybpf.cli import main
from pybpf.errors import BPFError, ClosedError, ObjectError
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
    process,
    spawn,
    trace,
    trap,
)
from pybpf.syscall import seccomp as door

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
libc = ctypes.CDLL(None, use_errno=True)
TOO_OLD = 98  # a child's exit code


def in_child(work: Callable[[], int]) -> int:
    """What a forked child's work comes to: its exit code, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def errno_of(call: Callable[[], object]) -> int:
    """0, or the errno of the OSError that a call raises."""
    try:
        call()
    except OSError as error:
        return error.errno or 99
    return 0


def denied(policy: Policy, call: Callable[[], object], **options: bool) -> int:
    """The errno that a call has in a child under the policy; negative when a signal ended it."""

    def work() -> int:
        policy.install(**options)
        return errno_of(call)

    return in_child(work)


def make_folder() -> None:
    os.mkdir("/proc/nothing")


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (errno("EROFS"), numbers.EROFS),
        (errno(95), 95),
        (ALLOW, numbers.ENOENT),
        (LOG, numbers.ENOENT),
        (trace(), numbers.ENOSYS),
        (NOTIFY, numbers.ENOSYS),  # without a listener
        (KILL_PROCESS, -signal.SIGSYS),
        (KILL_THREAD, -signal.SIGSYS),
        (trap(), -signal.SIGSYS),
    ],
    ids=repr,
)
def test_actions(action: object, expected: int) -> None:
    policy = Policy()
    policy.add(action, "mkdir", "mkdirat")  # type: ignore[arg-type]
    assert denied(policy, make_folder) == expected


def test_a_list_of_what_is_allowed() -> None:
    policy = Policy(errno("EPERM"))
    policy.add(ALLOW, "exit_group", "write", "munmap", "mmap", "brk", "futex", "rt_sigaction")
    assert denied(policy, lambda: os.write(2, b"")) == 0
    assert denied(policy, make_folder) == numbers.EPERM
    assert denied(policy, lambda: socket.socket()) == numbers.EPERM


def test_arguments() -> None:
    policy = Policy()
    policy.add(errno("EACCES"), "kill", arg[1] == signal.SIGCONT)
    assert denied(policy, lambda: os.kill(os.getpid(), signal.SIGCONT)) == numbers.EACCES
    assert denied(policy, lambda: os.kill(os.getpid(), 0)) == 0


@pytest.mark.skipif(sys.maxsize < 1 << 32, reason="needs arguments of 64 bits")
@pytest.mark.parametrize("offset", [0, 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 3 << 32, (1 << 62) + 5])
@pytest.mark.parametrize("value", [1 << 32, (1 << 32) + 1, 0xFFFFFFFF])
def test_arguments_of_64_bits(offset: int, value: int) -> None:
    """The kernel judges lseek(fd, offset) as Python compares the numbers."""
    for index, (condition, holds) in enumerate(
        [
            (arg[1] == value, offset == value),
            (arg[1] != value, offset != value),
            (arg[1] < value, offset < value),
            (arg[1] <= value, offset <= value),
            (arg[1] > value, offset > value),
            (arg[1] >= value, offset >= value),
            (arg[1] & 0xFFFFFFFF00000000 == value & 0xFFFFFFFF00000000, offset >> 32 == value >> 32),
        ]
    ):
        policy = Policy()
        policy.add(errno("EXDEV"), "lseek", condition)
        with open("/dev/zero", "rb") as file:
            found = denied(policy, lambda: os.lseek(file.fileno(), offset, os.SEEK_SET))
        assert (found == numbers.EXDEV) == holds, index


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64 machine code")
class TestOtherArchitectures:
    @staticmethod
    def call_32(number: int) -> int:
        """A system call of i386: mov eax, number; int 0x80; ret."""
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(b"\xb8" + number.to_bytes(4, "little") + b"\xcd\x80\xc3")
        function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
        return function()

    def test_i386_is_refused_unless_it_is_named(self) -> None:
        if in_child(lambda: int(self.call_32(20) != os.getpid())) != 0:
            pytest.skip("this kernel has no system calls of i386")
        policy = Policy()
        assert denied(policy, lambda: self.call_32(20)) == -signal.SIGSYS
        both = Policy(architectures=["x86_64", "i386"])
        both.add(errno("EXDEV"), "getpid")

        def work() -> int:
            code = self.call_32
            both.install()
            return -code(20)

        assert in_child(work) == numbers.EXDEV

    def test_x32_is_refused(self) -> None:
        def getpid_x32() -> int:
            libc.syscall(0x40000000 | 39)
            return 0

        assert denied(Policy(), getpid_x32) == -signal.SIGSYS
        soft = Policy(foreign=errno("EXDEV"))

        def work() -> int:
            soft.install()
            libc.syscall(0x40000000 | 39)
            return ctypes.get_errno()

        assert in_child(work) == numbers.EXDEV


@pytest.mark.parametrize(("all_threads", "expected"), [(True, numbers.EROFS), (False, numbers.ENOENT)])
def test_threads(all_threads: bool, expected: int) -> None:
    """A thread that was there before is under the filter only with TSYNC."""
    policy = Policy()
    policy.add(errno("EROFS"), "mkdir", "mkdirat")

    def work() -> int:
        go, found = threading.Event(), []

        def other() -> None:
            go.wait()
            found.append(errno_of(make_folder))

        thread = threading.Thread(target=other)
        thread.start()
        policy.install(all_threads=all_threads)
        go.set()
        thread.join()
        return found[0]

    assert in_child(work) == expected


def test_no_new_privs_is_set_first_and_can_be_left_out() -> None:
    def work(no_new_privs: bool) -> int:
        before = door.get_no_new_privs()
        Policy().install(no_new_privs=no_new_privs)
        return int(before) * 10 + int(door.get_no_new_privs())

    assert in_child(lambda: work(True)) == 1
    if os.geteuid() == 0:
        assert in_child(lambda: work(False)) == 0

        def nobody() -> int:
            os.setuid(65534)
            try:
                Policy().install(no_new_privs=False)
            except PermissionError:
                return 7
            return 0

        assert in_child(nobody) == 7


def test_filters_add_up() -> None:
    first, second = Policy(), Policy()
    first.add(errno("EROFS"), "mkdir", "mkdirat")
    second.add(errno("EACCES"), "rmdir", "unlinkat")

    def work() -> int:
        first.install(log=True)
        second.install()
        return int((errno_of(make_folder), errno_of(lambda: os.rmdir("/proc/x"))) == (numbers.EROFS, numbers.EACCES))

    assert in_child(work) == 1


def test_actions_that_this_kernel_knows() -> None:
    assert door.seccomp_action_available(ALLOW.value)
    assert door.seccomp_action_available(errno(0).value)
    assert not door.seccomp_action_available(0x12340000)


def test_a_filter_for_another_byte_order_is_refused() -> None:
    policy = Policy(architectures=["s390x" if sys.byteorder == "little" else "x86_64"])
    with pytest.raises(ObjectError, match="endian machines, which this is not"):
        policy.install()


def test_what_the_kernel_refuses_is_refused() -> None:
    """Of programs at random, the kernel takes for seccomp those that `check_seccomp` takes, and no other."""
    chance = random.Random(6)
    programs = [random_program(chance, wild=chance.choice([0, 0.02, 0.2]), seccomp=True) for _ in range(few(400))]
    programs += [
        Filter.from_ddd(f"3\n{code} 0 0 4\n6 0 0 2147418112\n6 0 0 2147418112\n")
        for code in range(0, 256, 400 // few(400))
    ]
    verdicts = []
    for program in programs:
        try:
            check_seccomp(program.instructions)
            ours = True
        except ObjectError:
            ours = False

        def work(program: Filter = program) -> int:
            door.set_no_new_privs()
            try:
                door.seccomp_set_filter(program.to_bytes())
            except BPFError:
                return 1
            return 0

        assert (in_child(work) != 1) == ours, f"{program}"
        verdicts.append(ours)
    assert len(verdicts) // 10 < sum(verdicts) < len(verdicts) * 9 // 10


class TestSpawn:
    def test_a_program_under_rules(self, tmp_path: Path) -> None:
        policy = Policy()
        policy.add(errno("EROFS"), "mkdir", "mkdirat")
        with spawn(policy, ["mkdir", str(tmp_path / "x")]) as child:
            assert child.wait() == 1
        assert not (tmp_path / "x").exists()
        with spawn(
            Policy(), ["sh", "-c", "exit $CODE"], environment={"CODE": "7", "PATH": os.environ["PATH"]}
        ) as child:
            assert child.wait() == 7
        policy.add(KILL_PROCESS, "rmdir", "unlinkat")
        with spawn(policy, ["rmdir", str(tmp_path)]) as child:
            assert child.wait() == -signal.SIGSYS
        assert tmp_path.exists()

    def test_what_cannot_be_started(self) -> None:
        with pytest.raises(FileNotFoundError, match=r"child '/no/such/program': execve: No such file"):
            spawn(Policy(), ["/no/such/program"])
        blocked = Policy()
        blocked.add(errno("EACCES"), "execve")
        with pytest.raises(PermissionError, match="execve"):
            spawn(blocked, ["true"])
        with pytest.raises(ValueError, match="there is none"):
            spawn(Policy(), [])
        with pytest.raises(BPFError, match="execve: Invalid argument"):
            spawn(Policy(), ["true", "a\0b"])

    def test_pointers_that_lead_nowhere(self) -> None:
        """The program chooses what it gives for a pointer; whoever looks at it gets an OSError for each."""
        policy = Policy()
        policy.add(NOTIFY, "unlinkat")
        number = Architecture(native()).numbers["unlinkat"]
        script = f"import ctypes, sys; ctypes.CDLL(None).syscall({number}, -1, ctypes.c_void_p(int(sys.argv[1])), 0)"
        for pointer in (1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
            with spawn(policy, [sys.executable, "-c", script, str(pointer)]) as child:
                assert child.listener is not None
                for call in child.listener:
                    assert call.arguments[1] == pointer
                    with pytest.raises(OSError, match=r"Input/output error"):
                        call.read_string(pointer)
                    call.respond(0)

    def test_notifications(self, tmp_path: Path) -> None:
        """Calls of a program are answered: one made, one refused, one only said to have been made."""
        policy = Policy()
        policy.add(NOTIFY, "mkdir", "mkdirat")
        names = [str(tmp_path / name) for name in ("real", "refused", "claimed")]
        seen = []
        script = "import os, sys\nfor name in sys.argv[1:]:\n try: os.mkdir(name)\n except OSError as e: print(e.errno)"
        with spawn(policy, [sys.executable, "-c", script, *names]) as child:
            assert child.listener is not None
            for call in child.listener:
                position = 1 if call.name == "mkdirat" else 0
                name = call.read_string(call.arguments[position])
                seen.append(name)
                assert call.is_valid()
                assert call.architecture in policy.architectures[0].name
                if name.endswith("real"):
                    call.proceed()
                elif name.endswith("refused"):
                    call.fail("EROFS")
                else:
                    call.respond(0)
                assert call.answered
                assert not call.is_valid()
            assert child.wait() == 0
        assert seen == names
        assert [os.path.isdir(name) for name in names] == [True, False, False]

    def test_a_listener_that_cannot_be_taken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The child, which waits for it, is not left behind."""

        def refuse(*_: int) -> None:
            raise PermissionError("no")

        monkeypatch.setattr(process, "_take", refuse)
        policy = Policy()
        policy.add(NOTIFY, "getpriority")
        before = set(os.listdir("/proc/self/fd"))
        with pytest.raises(PermissionError, match="no"):
            spawn(policy, ["true"])
        assert set(os.listdir("/proc/self/fd")) == before
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, 0)

    def test_several_at_a_time(self) -> None:
        """Each child has a listener of its own, although a later one inherits those of the earlier ones."""
        script = "import os, sys; sys.exit(os.getpriority(0, 0) + 20)"
        policy = Policy()
        policy.add(NOTIFY, "getpriority")
        children = [spawn(policy, [sys.executable, "-c", script]) for _ in range(3)]
        for number, child in reversed(list(enumerate(children))):
            assert child.listener is not None
            call = child.listener.receive(timeout=20)
            assert call is not None
            assert call.pid == child.pid
            call.respond(20 - number)  # the system call gives 20 - priority
            child.close()
        assert [child.status for child in children] == [20, 21, 22]

    def test_an_empty_environment(self) -> None:
        with spawn(Policy(), ["/bin/sh", "-c", "exit ${HOME:+1}"], environment={}) as child:
            assert child.wait() == 0

    def test_the_start_itself_may_wait(self) -> None:
        policy = Policy()
        policy.add(NOTIFY, "execve", "openat")
        names = set()
        with spawn(policy, ["true"]) as child:
            assert child.listener is not None
            for call in child.listener:
                names.add(call.name)
                call.proceed()
            assert child.wait() == 0
        assert names == {"execve", "openat"}

    def test_a_listener_that_is_closed(self) -> None:
        policy = Policy()
        policy.add(NOTIFY, "getpriority")
        script = "import os, sys\ntry: os.getpriority(0, 0)\nexcept OSError as e: sys.exit(e.errno)"
        child = spawn(policy, [sys.executable, "-c", script])
        assert child.listener is not None
        call = child.listener.receive(timeout=20)
        assert call is not None
        assert repr(call).startswith("<Notification getpriority(0x0, 0x0")
        child.close()
        assert child.status == numbers.ENOSYS
        child.close()

    def test_waiting_in_vain(self) -> None:
        policy = Policy()
        policy.add(NOTIFY, "getpriority")
        with spawn(policy, ["sleep", "0.5"]) as child:
            assert child.listener is not None
            start = time.monotonic()
            assert child.listener.receive(timeout=0.05) is None
            assert time.monotonic() - start < 0.5
            assert child.listener.receive() is None  # nobody is left

    def test_closing_wakes_who_waits(self) -> None:
        policy = Policy()
        policy.add(NOTIFY, "getpriority")
        child = spawn(policy, ["sleep", "5"])
        listener = child.listener
        assert listener is not None

        def close() -> None:
            time.sleep(0.2)
            listener.close()

        before = len(os.listdir("/proc/self/fd"))
        raised = run_all(listener.receive, listener.receive, lambda: list(listener), close, patience=4)
        assert [type(error) for error in raised] == [ClosedError, ClosedError]
        assert len(os.listdir("/proc/self/fd")) == before - 1
        with pytest.raises(ClosedError):
            listener.receive(0)
        with pytest.raises(ClosedError):
            iter(listener)
        assert child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
        child.close()

    def test_a_call_goes_to_one_of_those_who_wait(self) -> None:
        """The kernel wakes all; the others must go on waiting where `close()` can wake them."""
        policy = Policy()
        policy.add(NOTIFY, "getpriority")
        script = "import os, time\nfor _ in range(200): os.getpriority(0, 0)\ntime.sleep(5)"
        child = spawn(policy, [sys.executable, "-c", script])
        listener = child.listener
        assert listener is not None
        answered: list[None] = []

        def answer() -> None:
            for call in listener:
                call.respond(20)
                answered.append(None)
                if len(answered) == 200:
                    listener.close()

        assert run_all(answer, answer, answer, patience=20) == []
        assert len(answered) == 200
        os.kill(child.pid, signal.SIGKILL)
        child.close()

    def test_a_forked_child_closes_what_its_parent_waits_with(self) -> None:
        policy = Policy()
        policy.add(NOTIFY, "getpriority")
        with spawn(policy, ["sleep", "5"]) as child:
            listener = child.listener
            assert listener is not None

            def fork() -> None:
                time.sleep(0.2)
                number = listener.fileno()
                pid = os.fork()
                if pid == 0:
                    listener.close()
                    os._exit(os.path.exists(f"/proc/self/fd/{number}"))
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.kill(child.pid, signal.SIGKILL)
                assert code == 0

            assert run_all(lambda: list(listener), fork, patience=20) == []
            assert child.wait() == -signal.SIGKILL


@pytest.mark.parametrize("at_once", [False, True])
def test_descriptors_are_given_to_who_asks(at_once: bool) -> None:
    """A call for a socket gets one that somebody else made; where it goes to may be said."""
    policy = Policy()
    policy.add(NOTIFY, "socket")
    ours, theirs = socket.socketpair()

    def work() -> int:
        left, right = socket.socketpair()
        listener = policy.install(listener=True)
        pid = os.fork()
        if pid == 0:
            listener.close()
            number = libc.syscall(Architecture(native()).numbers["socket"], 1, 2, 3)  # not by socketcall(2)
            os.write(number, b"hello from a socket that I asked for")
            os._exit(number)
        left.close()
        right.close()
        with listener:
            call = listener.receive(timeout=20)
            assert call.name == "socket" and call.arguments[:3] == (1, 2, 3)
            place = call.add_descriptor(theirs, number=77, cloexec=True)
            if at_once:
                try:
                    assert call.add_descriptor(theirs, respond=True) != 77
                except BPFError as error:
                    if error.errno != numbers.EINVAL:
                        raise
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    return TOO_OLD
            else:
                call.respond(call.add_descriptor(theirs))
            assert call.answered
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return int(place == 77 and status > 2)

    with ours, theirs:
        if (came := in_child(work)) == TOO_OLD:
            pytest.skip("this kernel does not give a descriptor and answer at once (Linux 5.14): EINVAL")
        assert came == 1
        ours.settimeout(5)
        assert ours.recv(100) == b"hello from a socket that I asked for"


class TestCommand:
    def test_rules_on_the_command_line(self, tmp_path: Path) -> None:
        words = ["seccomp", "--rule", "errno EROFS mkdir mkdirat", "--", "mkdir", str(tmp_path / "x")]
        assert main(words) == 1
        assert main(["seccomp", "--rule", "kill mkdir mkdirat", *words[3:]]) == 128 + signal.SIGSYS
        assert main(["seccomp", "--rule", "log mkdir mkdirat", *words[3:]]) == 0
        assert (tmp_path / "x").is_dir()

    def test_show_and_export(self, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        rules = tmp_path / "rules"
        rules.write_text("arch s390x\nerrno EPERM mkdir\n")
        assert main(["seccomp", "--rules", str(rules), "--show", "d"]) == 0
        shown = capfdbinary.readouterr().out.decode()
        assert shown.startswith("(000) ld       [4]\n(001) jeq      #0x80000016")
        assert main(["seccomp", "--rules", str(rules), "--show", "raw"]) == 0
        raw = capfdbinary.readouterr().out
        assert f"{Filter.from_bytes(raw, 'big')}\n" == shown
        assert main(["seccomp", "--rules", str(rules), "--show", "ddd"]) == 0
        assert Filter.from_ddd(capfdbinary.readouterr().out.decode()) == Filter.from_bytes(raw, "big")

    def test_notifications_are_shown(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        folder = tmp_path / "x"
        assert main(["seccomp", "--rule", "notify mkdir mkdirat", "--", "mkdir", str(folder)]) == 0
        assert folder.is_dir()
        assert " mkdir" in capfd.readouterr().err

    def test_mistakes(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """A rule on the command line that is none is wrong usage; in a file it makes the file a wrong one."""
        assert main(["seccomp", "--rule", "errno EPERM mkdir", "--rule", "frob read", "true"]) == 2
        assert "--rule 'frob read': there is no action 'frob'" in capsys.readouterr().err
        (tmp_path / "rules").write_text("frob read")
        assert main(["seccomp", "--rules", str(tmp_path / "rules"), "true"]) == 3
        assert "line 1: 'frob read': there is no action 'frob'" in capsys.readouterr().err
        assert main(["seccomp"]) == 2


class Watch:
    """Notes what is called; refuses to go on after a call that makes a descriptor."""

    def __init__(self, breaks: bool) -> None:
        self.names: list[str] = []
        self.breaks = breaks

    def before(self, call: syscall.Call) -> None:
        self.names.append(call.command)

    def after(self, call: syscall.Call) -> None:
        if self.breaks and call.makes_descriptor:
            raise KeyError


@pytest.mark.parametrize("breaks", [False, True])
def test_observers_see_the_calls(breaks: bool) -> None:
    def work() -> int:
        before = len(os.listdir("/proc/self/fd"))
        watch = Watch(breaks)
        syscall.add_observer(watch)
        try:
            Policy().install(listener=True).close()
        except KeyError:
            assert breaks
        assert len(os.listdir("/proc/self/fd")) == before
        return int(watch.names == ["PR_SET_NO_NEW_PRIVS", "SECCOMP_FILTER_FLAG_NEW_LISTENER"])

    assert in_child(work) == 1


def test_a_child_ends_when_its_parent_dies_first() -> None:
    """Nobody takes its listener then; it must not wait for that for ever."""
    code = (
        "import os, pybpf.seccomp.process as process\n"
        "from pybpf.seccomp import NOTIFY, Policy\n"
        "process.PATIENCE = 1000\n"
        "def die(child, inherited):\n"
        "    print(child.pid, flush=True)\n"
        "    os._exit(0)\n"
        "process._find_listener = die\n"
        "policy = Policy()\n"
        "policy.add(NOTIFY, 'mkdirat')\n"
        "process.spawn(policy, ['sleep', '60'])\n"
    )
    pid = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":  # nobody waits for it here
                    return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")
