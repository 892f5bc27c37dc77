"""What every example needs: the built kernel of its name, for this machine's byte order."""

import sys
from pathlib import Path

ENDING = ".bpf.o" if sys.byteorder == "little" else ".eb.bpf.o"


def kernel(name: str) -> Path:
    """The object that scripts/build-kernels made from kernels/learn/<name>.bpf.c."""
    return Path(__file__).resolve().parents[3] / "kernels" / "learn" / (name + ENDING)
