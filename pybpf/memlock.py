"""RLIMIT_MEMLOCK, which maps and programs are charged to before Linux 5.11.

The limit is not touched unless the kernel has refused something with EPERM and `pybpf.compat` finds that this kernel
charges it. That module is imported only then.
"""

from __future__ import annotations

import errno

from pybpf.errors import BPFError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")


def with_memlock(call: Callable[P, R], *args: P.args, **options: P.kwargs) -> R:
    """Make the call; after EPERM lift RLIMIT_MEMLOCK, if this kernel charges it, and make it once more."""
    try:
        return call(*args, **options)
    except BPFError as error:
        if error.errno != errno.EPERM:
            raise
        from pybpf.compat import raise_memlock

        if not raise_memlock():
            raise
    return call(*args, **options)
