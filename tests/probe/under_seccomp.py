"""Run in a process of its own: forbids system calls with a seccomp filter, then becomes another program.

    python under_seccomp.py NUMBER[,NUMBER...] ERRNO COMMAND...

Source: seccomp(2); Documentation/userspace-api/seccomp_filter.rst of the kernel.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
RET_ERRNO, RET_ALLOW = 0x00050000, 0x7FFF0000


class Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def forbid(numbers: list[int], errno: int) -> None:
    code = [struct.pack("=HBBI", LOAD_NUMBER, 0, 0, 0)]
    for number in numbers:
        code.append(struct.pack("=HBBI", JUMP_IF_EQUAL, 0, 1, number))
        code.append(struct.pack("=HBBI", RETURN, 0, 0, RET_ERRNO | errno))
    code.append(struct.pack("=HBBI", RETURN, 0, 0, RET_ALLOW))
    libc = ctypes.CDLL(None, use_errno=True)
    program = Filter(len(code), b"".join(code))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program)
    ):
        raise SystemExit(f"cannot: {os.strerror(ctypes.get_errno())}")


forbid([int(number) for number in sys.argv[1].split(",")], int(sys.argv[2]))
os.execvp(sys.argv[3], sys.argv[3:])
