"""rtnetlink messages, which pyroute2 (the extra ``net``) makes and reads.

pyroute2 is imported here and nowhere else, and only its messages are used: its sockets run an asyncio loop of their
own, so that they could not be used inside of one.

An attachment through netlink has no link object in the kernel: it stays when the process dies without closing it. It
keeps its netlink socket open, and with it the network namespace in which it was made.

Source: rtnetlink(7); net/core/rtnetlink.c, net/sched/cls_api.c.
"""

from __future__ import annotations

import struct

from pybpf.errors import BPFError
from pybpf.links.refusal import CAP_NET_ADMIN, permission_hints, refused
from pybpf.syscall.netlink import RouteSocket
from pybpf.syscall.netlink_numbers import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType
    from typing import Any

NEEDS = "pyroute2 is needed for that: pip install 'pybpf[net]'"


def pyroute2_module(name: str) -> ModuleType:
    """A module of pyroute2.

    Raises:
        ModuleNotFoundError: it is not installed; the message names the extra.
    """
    try:
        module: ModuleType = __import__(f"pyroute2.{name}", fromlist=("*",))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyroute2":
            raise
        raise ModuleNotFoundError(f"Attaching through netlink: {NEEDS}", name="pyroute2") from None
    return module


def nested_class(names: Mapping[str, str]) -> type:
    """A class of nested attributes for pyroute2: the attributes' names, in order of their numbers, and their formats.

    It is for attributes of which pyroute2's own classes know too little, or something wrong.
    """
    base = pyroute2_module("netlink")
    return type("attributes", (base.nla,), {"nla_map": tuple(names.items()), "nla_flags": base.NLA_F_NESTED})


def has_pyroute2() -> bool:
    try:
        pyroute2_module("netlink")
    except ModuleNotFoundError:
        return False
    return True


class Talk:
    """The talk about one thing, over one socket. A context manager.

    Args:
        make: a class of messages of pyroute2: `tcmsg`, `ifinfmsg`, `rtmsg`.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make
        self.socket = RouteSocket()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def encode(self, kind: int, flags: int, fields: Mapping[str, int], attributes: list[tuple[str, Any]]) -> bytes:
        """A message.

        Raises:
            ValueError: a number does not fit into its field, or an address is none.
        """
        message = self._make()
        message.update(fields)
        message["attrs"] = attributes
        message["header"] = {"type": kind, "flags": NLM_F_REQUEST | flags, "pid": 0, "sequence_number": 0}
        try:
            message.encode()
        except (struct.error, OSError) as error:
            given = {**fields, **{name: value for name, value in attributes if isinstance(value, (int, str))}}
            words = ", ".join(f"{name} {value}" for name, value in given.items())
            raise ValueError(f"a number is too large, or an address is none: {words}: {error}") from None
        return bytes(message.data)

    def ask(
        self,
        command: str,
        kind: int,
        fields: Mapping[str, int],
        attributes: list[tuple[str, Any]],
        what: str,
        *,
        flags: int = 0,
        hints: Mapping[int, str] | None = None,
    ) -> list[Any]:
        """Sends a message and gives the decoded answers.

        Args:
            command: the name of `kind`: "RTM_NEWTFILTER".
            what: what is being done, for the error.
            flags: of the message. NLM_F_DUMP asks for a list.
            hints: for errors about which the kernel itself says nothing.

        Raises:
            BPFError: the kernel refused.
            ValueError: a number does not fit into its field, or an address is none.
        """
        if flags & NLM_F_DUMP != NLM_F_DUMP:
            flags |= NLM_F_ACK
        try:
            answers = self.socket.request(command, self.encode(kind, flags, fields, attributes))
        except BPFError as error:
            known = {} if error.hint else dict(hints or {})
            raise refused(error, what, {**known, **permission_hints(CAP_NET_ADMIN)}) from None
        return [self._decode(answer) for answer in answers]

    def _decode(self, answer: bytes) -> Any:
        message = self._make(answer)
        message.decode()
        return message
