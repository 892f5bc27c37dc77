"""Programs into the kernel: BPF_PROG_LOAD for each program of an object.

Rules:

* The first attempt asks for no log: a log costs the verifier time. Only a refusal is tried again with one.
* The log is never cut: the buffer grows until the whole log fits.
* The programs of a large object are loaded by several threads, because the verifier is half of the time of a load and
  makes nobody wait. The threads are gone when `load_programs` returns or raises. They only run ahead: what they could
  not load is left to the caller's thread, which goes through the programs in order and alone. So errors are the same
  as without them, and what observers of the door see too: under their eyes there are no threads.

Source: bpf_object_load_prog() of libbpf; bpf_check() of kernel/bpf/verifier.c (a lock is for unprivileged programs).
"""

from __future__ import annotations

import errno
import os
from _thread import allocate_lock, start_new_thread

from pybpf.errors import BPFError
from pybpf.memlock import with_memlock
from pybpf.program import Program
from pybpf.syscall import door
from pybpf.syscall.creation import prog_load
from pybpf.syscall.fd import make_room

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Iterable
    from typing import Any

    from pybpf.elf.linking import Image
    from pybpf.loading.loader import Loader
    from pybpf.spec import ProgramSpec
    from pybpf.syscall.fd import FD

FIRST_LOG_SIZE = (1 << 24) - 1
LARGEST_LOG_SIZE = 0xFFFFFFFF >> 2
"""The kernel takes no larger buffer (bpf_verifier_log_attr_valid, kernel/bpf/log.c)."""

PROGRAMS_PER_THREAD = 4
MOST_THREADS = 4


class Job:
    """A program that is ready to be loaded.

    Attributes:
        spec: what it is made from.
        image: its code.
        fields: the fields of BPF_PROG_LOAD, without those that ask for a log.
        level: the log level that was asked for.
    """

    __slots__ = ("fields", "image", "level", "spec")

    def __init__(self, loader: Loader, spec: ProgramSpec, image: Image, fields: dict[str, Any]) -> None:
        self.spec = spec
        self.image = image
        self.level = loader.options.log_level | spec.log_level
        self.fields = fields
        fields["license"] = spec.license
        fields["name"] = spec.kernel_name
        if loader.btf_fd is not None:
            fields["btf_fd"] = loader.btf_fd
            fields["func_info"], fields["func_info_rec_size"] = image.func_info, image.func_info_rec_size
            fields["line_info"], fields["line_info_rec_size"] = image.line_info, image.line_info_rec_size

    def load(self, **log: Any) -> FD:
        """Make the call. Raises BPFError."""
        return prog_load(self.spec.type_number, self.image.instructions, **self.fields, **log)


def load_programs(loader: Loader, jobs: list[Job]) -> None:
    """Load the programs and put them into `loader.programs`, in order. After an error those before it are there.

    Raises:
        VerifierError: the verifier rejected a program.
        BPFError: the kernel refused one for another reason.
    """
    ahead: list[FD | None] = [None] * len(jobs)
    try:
        threads = min(len(os.sched_getaffinity(0)), len(jobs) // PROGRAMS_PER_THREAD, MOST_THREADS)
        if threads > 1 and not door.observers and not any(job.level for job in jobs):
            _load_ahead(jobs, ahead, threads)
        for number, job in enumerate(jobs):
            fd, log = ahead[number], ""
            if fd is None:
                fd, log = _load(loader, job)
            loader.programs[job.spec.name] = Program(
                fd,
                name=job.spec.name,
                attach_type_number=job.fields["expected_attach_type"],
                spec=job.spec,
                btf=loader.spec.btf,
                maps=loader.maps,
                log=log,
            )
            ahead[number] = None
    finally:
        for left in ahead:
            if left is not None:
                left.close()


def _load_ahead(jobs: list[Job], loaded: list[FD | None], threads: int) -> None:
    """Load programs in several threads, this one among them, until one is refused.

    Measured on two processors: fifty programs take 8 ms instead of 13.
    """
    waiting = list(reversed(range(len(jobs))))  # the next one stands last; pop() is atomic
    make_room(len(jobs))
    started: list[LockType] = []
    begun: list[LockType] = []

    def work() -> None:
        try:
            while waiting:
                number = waiting.pop()
                loaded[number] = jobs[number].load()
        except (BPFError, IndexError):  # IndexError: another thread took the last one
            waiting.clear()

    def help(done: LockType) -> None:
        try:
            begun.append(done)
            work()
        finally:
            done.release()

    try:
        for _ in range(threads - 1):
            done = allocate_lock()
            done.acquire()
            try:
                start_new_thread(help, (done,))
            except RuntimeError:  # this process may have no more threads
                break
            started.append(done)
        work()
    finally:
        waiting.clear()
        # An interrupt may have kept a thread out of `started`. If it has not begun either, it will find nothing to do.
        _wait_for({*started, *begun})


def _wait_for(locks: Iterable[LockType]) -> None:
    """Wait until all have been released, and only then let an interrupt through."""
    interrupt: BaseException | None = None
    for lock in locks:
        while True:
            try:
                lock.acquire()
                break
            except BaseException as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt


def _load(loader: Loader, job: Job) -> tuple[FD, str]:
    """One program's descriptor and its log (empty unless a log level was asked for)."""
    try:
        if job.level:
            return _load_with_log(job, job.level, loader.options.log_size)
        return with_memlock(job.load), ""
    except _Refused as refused:
        error, log = refused.error, refused.log
    except BPFError as first:
        try:
            return _load_with_log(job, 1, loader.options.log_size)
        except _Refused as refused:
            error, log = refused.error, refused.log
        if not log:
            error = first
    from pybpf.verifier.report import explain

    try:
        raise explain(loader, job.spec, job.image, error, log)
    finally:
        del error  # its traceback holds this frame, which would hold it, and all that called this


class _Refused(Exception):
    def __init__(self, error: BPFError, log: str) -> None:
        super().__init__(error)
        self.error = error
        self.log = log


def _load_with_log(job: Job, level: int, size: int) -> tuple[FD, str]:
    from pybpf.syscall.logs import LogBuffer

    size = size or FIRST_LOG_SIZE
    while True:
        buffer = LogBuffer(size)
        try:
            return with_memlock(job.load, log_level=level, log_buffer=buffer), _text(buffer)
        except BPFError as error:
            if error.errno == errno.ENOSPC and size < LARGEST_LOG_SIZE:
                size = min(max(2 * size, buffer.true_size), LARGEST_LOG_SIZE)
                continue
            raise _Refused(error, _text(buffer)) from None


def _text(buffer: bytearray) -> str:
    return buffer[: max(buffer.find(0), 0)].decode("utf-8", "replace")
