"""seccomp-bpf: classic filters that judge the system calls of a process.

    rules          Policy, actions, arg: what gets which answer       text     policies as text
    compiler       from a policy to a classic filter                  process  install, spawn
    listing        a filter with what its numbers mean
    architectures  system calls by name                               notify   Listener: answer calls
    numbers        generated

>>> from pybpf.seccomp import Policy, errno
>>> policy = Policy()
>>> _ = policy.add(errno("EPERM"), "mkdir", "mkdirat")
>>> print(policy.compile())        # the filter, disassembled
>>> policy.install()               # from now on, and for ever
"""

from __future__ import annotations

from pybpf.lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.seccomp.architectures import Architecture, native
    from pybpf.seccomp.notify import Listener, Notification
    from pybpf.seccomp.process import Child, install, spawn
    from pybpf.seccomp.rules import (
        ALLOW,
        KILL_PROCESS,
        KILL_THREAD,
        LOG,
        NOTIFY,
        Action,
        Condition,
        Policy,
        Rule,
        arg,
        errno,
        trace,
        trap,
    )
    from pybpf.seccomp.text import parse

__all__ = [
    "ALLOW",
    "KILL_PROCESS",
    "KILL_THREAD",
    "LOG",
    "NOTIFY",
    "Action",
    "Architecture",
    "Child",
    "Condition",
    "Listener",
    "Notification",
    "Policy",
    "Rule",
    "arg",
    "errno",
    "install",
    "native",
    "parse",
    "spawn",
    "trace",
    "trap",
]

_HOMES = {
    "architectures": "Architecture native",
    "notify": "Listener Notification",
    "process": "Child install spawn",
    "rules": "ALLOW KILL_PROCESS KILL_THREAD LOG NOTIFY Action Condition Policy Rule arg errno trace trap",
    "text": "parse",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}


if not TYPE_CHECKING:  # there, names that are not imported above do not exist
    __getattr__, __dir__ = lazy_names(globals(), _HOME)
