"""The few pieces of ctypes that the door needs, made from its built-in part.

Importing ctypes itself makes forty more types, which takes 1.1 ms of every start. What is here is the same: the types
have the same names, and the functions of C behave as those of CDLL and PyDLL with ``use_errno=True``.
"""

from __future__ import annotations

from _ctypes import addressof, byref, get_errno, set_errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from ctypes import c_char, c_char_p, c_long, c_ulong, c_void_p

    syscall: Callable[..., int]
    syscall_holding: Callable[..., int]
    syscall_quick: Callable[..., int]
    ioctl: Callable[..., int]
    getsockopt: Callable[..., int]
    prctl: Callable[..., int]
else:
    from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_PYTHONAPI, FUNCFLAG_USE_ERRNO, CFuncPtr, _SimpleCData, dlopen

    def _type(name, code):
        """One of the types of ctypes; the codes are those of `struct`, and z for a string, P for an address."""
        return type(_SimpleCData)(name, (_SimpleCData,), {"_type_": code})

    c_char, c_char_p, c_void_p = _type("c_char", "c"), _type("c_char_p", "z"), _type("c_void_p", "P")
    c_int, c_long, c_ulong = _type("c_int", "i"), _type("c_long", "l"), _type("c_ulong", "L")

    class _Process:
        """This process as a library: glibc and musl both have syscall(3), and no file name is guessed."""

        _handle = dlopen(None)

    class _Function(CFuncPtr):
        """A function of C. Other threads run while it does."""

        _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
        _restype_ = c_int

    class _HoldingFunction(CFuncPtr):
        """A function of C that keeps the GIL."""

        _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO | FUNCFLAG_PYTHONAPI
        _restype_ = c_int

    class _QuickFunction(CFuncPtr):
        """A function of C that keeps the GIL, and whose errno is not kept: that takes some 65 ns of each call."""

        _flags_ = FUNCFLAG_CDECL | FUNCFLAG_PYTHONAPI
        _restype_ = c_int

    syscall = _Function(("syscall", _Process))
    syscall_holding = _HoldingFunction(("syscall", _Process))
    syscall_quick = _QuickFunction(("syscall", _Process))
    ioctl = _Function(("ioctl", _Process))
    getsockopt = _Function(("getsockopt", _Process))
    prctl = _Function(("prctl", _Process))

__all__ = [
    "addressof",
    "byref",
    "c_char",
    "c_char_p",
    "c_long",
    "c_ulong",
    "c_void_p",
    "get_errno",
    "getsockopt",
    "ioctl",
    "prctl",
    "set_errno",
    "syscall",
    "syscall_holding",
    "syscall_quick",
]
