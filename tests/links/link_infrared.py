"""An infrared receiver without hardware: the kernel's rc-loopback hears what is sent with it.

Source: lirc(4), drivers/media/rc/rc-loopback.c.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIRC_SET_REC_MODE = 0x40046912
LIRC_MODE_MODE2, LIRC_MODE_SCANCODE = 4, 8
LIRC_MODE2_PULSE, LIRC_VALUE_MASK = 0x01000000, 0x00FFFFFF
SCANCODE = struct.Struct("=QHHIQ")  # time, flags, protocol, key, scan code


def loopback() -> Path | None:
    """The loopback's LIRC device; real receivers are left alone."""
    for folder in Path("/sys/class/rc").glob("rc*"):
        if "DRV_NAME=rc-loopback" in (folder / "uevent").read_text():
            return next((Path("/dev", found.name) for found in folder.glob("lirc*")), None)
    return None


@contextmanager
def loopback_receiver() -> Iterator[Path | None]:
    """The same; its module is loaded for as long, where there is one."""
    if found := loopback():
        yield found
        return
    loaded = subprocess.run(["modprobe", "-q", "rc-loopback"], check=False).returncode == 0
    try:
        yield loopback()
    finally:
        if loaded:
            subprocess.run(["modprobe", "-r", "rc-loopback"], check=True)


def sent(device: Path, microseconds: list[int]) -> list[int]:
    """The lengths of the pulses that are received when these are sent: a pulse, a space, a pulse ... in microseconds.

    Programs have seen a pulse before anybody can read it.
    """
    return [
        sample & LIRC_VALUE_MASK
        for (sample,) in _received(device, microseconds, LIRC_MODE_MODE2, struct.Struct("=I"), microseconds[-1])
        if sample & ~LIRC_VALUE_MASK == LIRC_MODE2_PULSE
    ]


def decoded(device: Path, microseconds: list[int]) -> list[tuple[int, int]]:
    """The protocols and scan codes of the keys that are decoded when these are sent."""
    found = _received(device, microseconds, LIRC_MODE_SCANCODE, SCANCODE, None)
    return [(protocol, code) for _, _, protocol, _, code in found]


def _received(
    device: Path, microseconds: list[int], mode: int, record: struct.Struct, last: int | None
) -> list[tuple[int, ...]]:
    """What is read in a mode: up to the pulse of the length `last`, or to the first record."""
    fd = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, LIRC_SET_REC_MODE, struct.pack("=I", mode))
        os.write(fd, struct.pack(f"={len(microseconds)}I", *microseconds))
        found: list[tuple[int, ...]] = []
        end = time.monotonic() + 2
        while time.monotonic() < end and select.select([fd], [], [], 0.2)[0]:
            found += record.iter_unpack(os.read(fd, record.size * 64))
            if last is None or (last | LIRC_MODE2_PULSE,) in found:
                break
        return found
    finally:
        os.close(fd)
