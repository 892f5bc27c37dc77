"""The BPF objects of the whole system: programs, maps, links and BTF, whoever made them.

Each function gives the kernel's information of one kind, by ascending id. `Program.from_id(info.id)`, `Map.from_id` and
`Link.from_id` open one of them. All need CAP_SYS_ADMIN (or CAP_BPF, since Linux 6.9, for what a token allows).

    for program in pybpf.system.programs():
        print(program.id, program.name, program.run_cnt)

Source: BPF_PROG_GET_NEXT_ID and its neighbours in kernel/bpf/syscall.c.
"""

from __future__ import annotations

from pybpf import syscall
from pybpf.errors import BPFError, BPFNotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    from pybpf.syscall import FD, BTFInfo, LinkInfo, MapInfo, ProgramInfo

    T = TypeVar("T")


def programs() -> Iterator[ProgramInfo]:
    """What the kernel tells about each program. Since Linux 4.13.

    Raises:
        BPFPermissionError: CAP_SYS_ADMIN is missing.
    """
    return _walk("programs", syscall.prog_get_next_id, syscall.prog_get_fd_by_id, syscall.prog_info)


def maps() -> Iterator[MapInfo]:
    """What the kernel tells about each map. Since Linux 4.13.

    Raises:
        BPFPermissionError: CAP_SYS_ADMIN is missing.
    """
    return _walk("maps", syscall.map_get_next_id, syscall.map_get_fd_by_id, syscall.map_info)


def links() -> Iterator[LinkInfo]:
    """What the kernel tells about each link. Since Linux 5.8.

    Raises:
        BPFPermissionError: CAP_SYS_ADMIN is missing.
    """
    return _walk("links", syscall.link_get_next_id, syscall.link_get_fd_by_id, syscall.link_info)


def btf_objects() -> Iterator[BTFInfo]:
    """What the kernel tells about each BTF object: its own, its modules' and those of programs. Since Linux 5.4.

    Raises:
        BPFPermissionError: CAP_SYS_ADMIN is missing.
    """
    return _walk("BTF objects", syscall.btf_get_next_id, syscall.btf_get_fd_by_id, syscall.btf_info)


def _walk(
    what: str, next_id: Callable[[int], int | None], open_id: Callable[[int], FD], info: Callable[[FD], T]
) -> Iterator[T]:
    from pybpf.links.refusal import CAP_SYS_ADMIN, permission_hints, refused

    number: int | None = 0
    while True:
        try:
            number = next_id(number or 0)
            if number is None:
                return
            with open_id(number) as fd:
                found = info(fd)
        except (BPFNotFoundError, BlockingIOError):  # gone since, or not yet whole
            continue
        except BPFError as error:
            raise refused(error, f"listing {what}", permission_hints(CAP_SYS_ADMIN)) from None
        yield found
