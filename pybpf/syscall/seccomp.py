"""seccomp(2): filters on system calls, and answering the calls that a filter hands to user space.

Source: seccomp(2), seccomp_unotify(2), prctl(2), include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import errno
import struct

from pybpf.errors import kernel_error
from pybpf.seccomp import numbers as n
from pybpf.syscall import door, foreign, sysno
from pybpf.syscall.fd import FD, fileno, lend
from pybpf.syscall.perf_event import encode_ioctl
from pybpf.syscall.sockets import classic_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.syscall.door import Buffer
    from pybpf.syscall.fd import FdLike

DATA = struct.Struct("=iIQ6Q")
"""struct seccomp_data: number, architecture, instruction pointer, arguments."""
NOTIFICATION = struct.Struct("=QII" + DATA.format[1:])
"""struct seccomp_notif: id, pid, flags, data."""
RESPONSE = struct.Struct("=QqiI")
"""struct seccomp_notif_resp: id, value, error, flags."""
ADD_DESCRIPTOR = struct.Struct("=QIIII")
"""struct seccomp_notif_addfd: id, flags, descriptor here, descriptor there, its flags."""
_WORD, _ID = struct.Struct("=I"), struct.Struct("=Q")
_SIZES = {
    "struct seccomp_notif": NOTIFICATION.size,
    "struct seccomp_notif_resp": RESPONSE.size,
    "struct seccomp_notif_addfd": ADD_DESCRIPTOR.size,
    "__u64": 8,
}


def _packed(layout: struct.Struct, what: str, *numbers: int) -> bytearray:
    """The bytes of a struct. Raises ValueError."""
    try:
        return bytearray(layout.pack(*numbers))
    except struct.error as error:
        raise ValueError(f"seccomp: {what} {numbers} does not fit: {error}") from None


def _prctl(name: str, option: int, value: int = 0) -> int:
    def enter() -> int:
        words = [foreign.c_ulong(word) for word in (value, 0, 0, 0)]
        return door.call(foreign.prctl, option, *words)

    result = door.other("prctl", name, option, {"value": value}, enter)
    if result < 0:
        raise kernel_error(-result, f"prctl {name}")
    return result


def set_no_new_privs() -> None:
    """PR_SET_NO_NEW_PRIVS (Linux 3.5): this thread and its children gain no rights by executing programs, for ever."""
    _prctl("PR_SET_NO_NEW_PRIVS", n.PR_SET_NO_NEW_PRIVS, 1)


def get_no_new_privs() -> bool:
    """PR_GET_NO_NEW_PRIVS (Linux 3.5)."""
    return bool(_prctl("PR_GET_NO_NEW_PRIVS", n.PR_GET_NO_NEW_PRIVS))


def seccomp_set_filter(code: Buffer, flags: int = 0) -> FD | None:
    """SECCOMP_SET_MODE_FILTER (Linux 3.17): let a classic filter judge this thread's system calls, for ever.

    Args:
        code: struct sock_filter, one after the other; it is asked together with those that are there already.
        flags: SECCOMP_FILTER_FLAG_...

    Returns:
        With SECCOMP_FILTER_FLAG_NEW_LISTENER (Linux 5.0) the descriptor that notifications come through.

    Raises:
        BPFPermissionError: EACCES: neither no_new_privs is set nor does this process have CAP_SYS_ADMIN.
        BPFError: EINVAL: the filter is not valid, or a flag is not known; EBUSY: there is a listener already; ESRCH:
            a thread could not be brought to the same filters (with SECCOMP_FILTER_FLAG_TSYNC its id is the result,
            unless SECCOMP_FILTER_FLAG_TSYNC_ESRCH is set too); ENOMEM: the filters are longer than 32768 in total.
        ValueError: these are no instructions.
    """
    program, alive = classic_program(code)
    record = bytearray(program)
    owner = FD._empty()
    makes_descriptor = bool(flags & n.SECCOMP_FILTER_FLAG_NEW_LISTENER)

    def enter() -> int:
        arguments = n.SECCOMP_SET_MODE_FILTER, flags, foreign.byref(foreign.c_char.from_buffer(record))
        if makes_descriptor and not door.observers:
            return door.call_for_descriptor(owner, sysno.SECCOMP, *arguments)
        return door.call(foreign.syscall, sysno.SECCOMP, *arguments)

    # Observers know by the command whether the result is a descriptor.
    command = "SECCOMP_FILTER_FLAG_NEW_LISTENER" if makes_descriptor else "SECCOMP_SET_MODE_FILTER"
    arguments: dict[str, int | bytes] = {"flags": flags, "filter": bytes(code)}
    result = door.other("seccomp", command, n.SECCOMP_SET_MODE_FILTER, arguments, enter)
    del alive
    if result < 0:
        raise kernel_error(-result, "seccomp SECCOMP_SET_MODE_FILTER")
    if makes_descriptor:
        return owner._over(result)
    if result:
        raise kernel_error(errno.ESRCH, "seccomp SECCOMP_SET_MODE_FILTER", f"thread {result}")
    return None


def seccomp_action_available(action: int) -> bool:
    """SECCOMP_GET_ACTION_AVAIL (Linux 4.14): whether this kernel knows the action SECCOMP_RET_..."""
    word = _packed(_WORD, "an action", action)

    def enter() -> int:
        place = foreign.byref(foreign.c_char.from_buffer(word))
        return door.call(foreign.syscall, sysno.SECCOMP, n.SECCOMP_GET_ACTION_AVAIL, 0, place)

    arguments = {"action": action}
    result = door.other("seccomp", "SECCOMP_GET_ACTION_AVAIL", n.SECCOMP_GET_ACTION_AVAIL, arguments, enter)
    if result < 0 and result != -errno.EOPNOTSUPP:
        raise kernel_error(-result, "seccomp SECCOMP_GET_ACTION_AVAIL")
    return result == 0


def _ioctl(listener: FdLike, name: str, argument: bytearray) -> int:
    """Control a listener. A call that a signal interrupted is made again, after the signal's handler has run."""
    direction, command, what = n.IOCTLS[name]
    number = encode_ioctl("!", direction, command, _SIZES[what])
    with lend(listener) as fd:
        while (result := door.ioctl(fd, name, number, argument)) == -errno.EINTR:
            pass
    if result < 0:
        raise kernel_error(-result, name)
    return result


def seccomp_receive(listener: FdLike) -> bytes:
    """SECCOMP_IOCTL_NOTIF_RECV (Linux 5.0): wait for a system call that a filter hands over; struct seccomp_notif.

    Raises:
        BPFNotFoundError: ENOENT: whoever made the call has ended meanwhile.
    """
    record = bytearray(NOTIFICATION.size)
    _ioctl(listener, "SECCOMP_IOCTL_NOTIF_RECV", record)
    return bytes(record)


def seccomp_respond(listener: FdLike, id: int, value: int = 0, error: int = 0, flags: int = 0) -> None:
    """SECCOMP_IOCTL_NOTIF_SEND (Linux 5.0): answer a call.

    Args:
        id: of the notification.
        value: what the call returns.
        error: the errno it fails with instead, as a positive number.
        flags: SECCOMP_USER_NOTIF_FLAG_CONTINUE (Linux 5.5): let the kernel make the call after all.

    Raises:
        BPFNotFoundError: ENOENT: the call waits no longer.
        BPFError: EINPROGRESS: it has been answered.
    """
    _ioctl(listener, "SECCOMP_IOCTL_NOTIF_SEND", _packed(RESPONSE, "a response", id, value, -error, flags))


def seccomp_is_valid(listener: FdLike, id: int) -> bool:
    """SECCOMP_IOCTL_NOTIF_ID_VALID (Linux 5.0): whether the call still waits, so that its process is still the same."""
    from pybpf.errors import BPFNotFoundError

    try:
        _ioctl(listener, "SECCOMP_IOCTL_NOTIF_ID_VALID", _packed(_ID, "a notification", id))
    except BPFNotFoundError:
        return False
    return True


def seccomp_add_descriptor(
    listener: FdLike, id: int, source: FdLike, *, flags: int = 0, number: int = 0, number_flags: int = 0
) -> int:
    """SECCOMP_IOCTL_NOTIF_ADDFD (Linux 5.9): give a descriptor to the process whose call waits; its number there.

    Args:
        id: of the notification.
        source: the descriptor here.
        flags: SECCOMP_ADDFD_FLAG_SETFD: it becomes `number` there; SECCOMP_ADDFD_FLAG_SEND (Linux 5.14): the number is
            the answer to the call, too.
        number_flags: O_CLOEXEC.

    Raises:
        BPFNotFoundError: ENOENT: the call waits no longer.
        BPFError: EINVAL; EMFILE: the process may have no more descriptors.
    """
    record = _packed(ADD_DESCRIPTOR, "a descriptor", id, flags, fileno(source), number, number_flags)
    return _ioctl(listener, "SECCOMP_IOCTL_NOTIF_ADDFD", record)


def take_descriptor(system_call: int, pid: int, number: int) -> FD:
    """pidfd_getfd(2) (Linux 5.6): a copy of another process's descriptor.

    Args:
        system_call: the number of pidfd_getfd on this machine.
        pid: the process; this one must be allowed to trace it.
        number: of the descriptor there.

    Raises:
        BPFPermissionError: this process may not trace that one.
        BPFNotFoundError: ESRCH: there is no such process.
        BPFError: EBADF: it has no such descriptor.
    """
    import os

    owner = FD._empty()

    def enter() -> int:
        process = os.pidfd_open(pid)
        try:
            if door.observers:
                return door.call(foreign.syscall, system_call, process, number, 0)
            return door.call_for_descriptor(owner, system_call, process, number, 0)
        finally:
            os.close(process)

    result = door.other("pidfd_getfd", "", system_call, {"pid": pid, "fd": number}, enter)
    if result < 0:
        raise kernel_error(-result, "pidfd_getfd", f"process {pid}")
    return owner._over(result)
