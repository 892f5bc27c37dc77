"""Several guests at a time: one process of the matrix for each, whose lines are passed on with the kernel's name."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait


def run(commands: dict[str, list[str]], jobs: int) -> list[int]:
    """Run the commands, so many at a time, and pass their lines on, each after its command's name; the statuses."""
    lock = threading.Lock()
    running: set[subprocess.Popen[bytes]] = set()
    ended = False

    def run_one(name: str) -> int:
        with lock:
            if ended:
                return 1
            process = subprocess.Popen(
                commands[name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            running.add(process)
        with process:
            assert process.stdout
            for line in process.stdout:
                with lock:
                    sys.stdout.buffer.write(f"{name}| ".encode() + line.rstrip(b"\r\n") + b"\n")
                    sys.stdout.buffer.flush()
        with lock:
            running.discard(process)
        return process.returncode

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run_one, name) for name in commands]
        try:
            wait(futures)
        except BaseException:
            with lock:
                ended = True
                for process in running:
                    process.terminate()
            raise
    return [future.result() for future in futures]
