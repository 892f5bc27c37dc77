"""Room for the log of the verifier, or of the BTF checker."""

from __future__ import annotations


class LogBuffer(bytearray):
    """A bytearray that the kernel writes a log to.

    Attributes:
        true_size: bytes that the whole log has, its NUL included, as the last call found it; more than
            `len(buffer)` when the log was cut. 0 when the kernel did not say (before Linux 6.4, or no log was asked
            for).
    """

    __slots__ = ("true_size",)

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.true_size = 0

    @property
    def text(self) -> str:
        """What was written, without the NUL."""
        return bytes(self).partition(b"\0")[0].decode("utf-8", "replace")
