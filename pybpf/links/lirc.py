"""LIRC: programs that decode what an infrared receiver sees. Since Linux 4.18.

The kernel has no link for them: the program stays on the device until `close()` here, or until the device goes.

Source: drivers/media/rc/bpf-lirc.c.
"""

from __future__ import annotations

import errno
import os

from pybpf.constants import BPF_LIRC_MODE2
from pybpf.errors import kernel_error
from pybpf.links.direct import DirectAttachment, attach_directly
from pybpf.links.refusal import CAP_NET_ADMIN, attaching, permission_hints
from pybpf.syscall import FD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pybpf.links.base import Attachable


def open_lirc(device: str | os.PathLike[str]) -> FD:
    """A descriptor of a LIRC device, with which its programs are attached and asked for."""
    path = os.fspath(device)
    try:
        return FD(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        raise kernel_error(error.errno or 0, "open", path, "A LIRC device is needed, usually /dev/lirc0") from None


def attach_lirc(program: Attachable, device: str | os.PathLike[str] = "/dev/lirc0") -> DirectAttachment:
    """Lets a program decode what an infrared receiver sees. Since Linux 4.18; up to 64 for each device.

    Args:
        program: of type lirc_mode2; it is run for each pulse and each space.
        device: the receiver.

    Raises:
        BPFNotFoundError: there is no such device.
        BPFExistsError: the program is attached there already.
        BPFError: EINVAL: it is no LIRC device, or none for raw infrared.
    """
    path = os.fspath(device)
    opened = open_lirc(device)
    try:
        what = attaching(program, path)
        return attach_directly(program, opened, BPF_LIRC_MODE2, kind="lirc", name=path, what=what, hints=_hints)
    except BaseException:
        opened.close()
        raise


def _hints() -> dict[int, str]:
    return {
        errno.EINVAL: "The device is no receiver of raw infrared, or the kernel has no such programs (Linux 4.18)",
        errno.EEXIST: "This program is attached there already",
        errno.E2BIG: "The device has 64 programs, which is all it takes",
        **permission_hints(CAP_NET_ADMIN),
    }
