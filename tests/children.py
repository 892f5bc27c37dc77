"""Forked children."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def in_child(function: Callable[[], object], seconds: int = 10) -> int:
    """Call it in a forked child: 0, 1 if it raised, -SIGALRM if it does not end."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        try:
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@contextmanager
def another_thread_in(enter: Callable[[Callable[[], object]], object]) -> Iterator[None]:
    """While another thread is in the middle of this: it is given what to call there."""
    there, go_on = threading.Event(), threading.Event()

    def wait() -> bool:
        there.set()
        return go_on.wait()

    thread = threading.Thread(target=enter, args=(wait,))
    thread.start()
    there.wait()
    try:
        yield
    finally:
        go_on.set()
        thread.join()
