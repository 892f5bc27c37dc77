"""Many probes of one program, each an attachment of its own: what a pattern means where one link cannot hold them.

A program of SEC("kprobe") or SEC("uprobe") is put on one place at a time. On a pattern it gets a probe for each that
fits. That is slow, each being a perf event; SEC("kprobe.multi") and SEC("uprobe.multi") do it with one link.

Some functions that ftrace lists cannot be probed after all. Those are left out and told, unless none can.
"""

from __future__ import annotations

from pybpf.errors import BPFError
from pybpf.links.base import Link, Links

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class ManyLink(Link):
    """Probes that are closed together.

    Attributes:
        links: one for each place.
        failed: the places that could not be probed, each with the error.
    """

    __slots__ = ("failed", "links")

    def __init__(self, kind: str, target: str) -> None:
        super().__init__(None, kind, target)
        self.links = Links()
        self.failed: list[tuple[str, BPFError]] = []

    def _release(self) -> None:
        self.links.close()

    def __repr__(self) -> str:
        if self.closed:
            return super().__repr__()
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"<ManyLink {self._words()}: {len(self.links)} links{failed}>"


def attach_each(kind: str, target: str, names: Iterable[str], attach: Callable[[str], Link]) -> ManyLink:
    """Attach to each of the names.

    Raises:
        BPFError: none of them could be attached to; the error of the first one.
    """
    many = ManyLink(kind, target)
    try:
        for name in names:
            try:
                many.links.append(attach(name))
            except BPFError as error:
                many.failed.append((name, error))
        if not many.links and many.failed:
            raise many.failed[0][1]
    except BaseException:
        many.close()
        raise
    return many
