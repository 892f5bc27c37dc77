"""The fields of a call in words.

Rules of this module:

* Fields that are 0 are left out unless they are asked for: the kernel takes what is missing for 0, too.
* Where fields share a place, the one that is meant is told: by the attach type, the flags, or what the descriptor is.
"""

from __future__ import annotations

import sys

from pybpf import abi
from pybpf import constants as c
from pybpf.errors import BTFError
from pybpf.explaining.descriptors import constant, memory_text, perf_event_word, type_word
from pybpf.explaining.history import table
from pybpf.explaining.meanings import meaning
from pybpf.explaining.story import FieldStory
from pybpf.syscall.attrs import POINTERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pybpf.explaining.descriptors import Descriptors
    from pybpf.syscall import Call

    Values = Mapping[str, int | str | bytes]

SHOWN_BYTES = 32
"""How many bytes of memory are shown."""
SHOWN_ITEMS = 8
"""How many elements of an array are shown."""

_ON_INTERFACES = ("xdp", "tcx_", "netkit_")
_PARTS = (
    ("trace_iter", ("iter_info", "iter_info_len")),
    ("perf_event", ("perf_event.",)),
    ("trace_kprobe", ("kprobe_multi.",)),
    ("trace_uprobe", ("uprobe_multi.",)),
    ("netfilter", ("netfilter.",)),
    ("tcx_", ("tcx.",)),
    ("netkit_", ("netkit.",)),
    ("lsm_cgroup", ("cgroup.",)),
    ("cgroup_", ("cgroup.",)),
    ("trace_fentry_multi", ("tracing_multi.",)),
    ("trace_fexit_multi", ("tracing_multi.",)),
    ("trace_fsession_multi", ("tracing_multi.",)),
    ("trace_", ("tracing.",)),
    ("modify_return", ("tracing.",)),
    ("lsm_mac", ("tracing.",)),
)
"""Beginning of the attach type's name -> the fields of BPF_LINK_CREATE's variant part; the first that fits counts."""
_FIXED = ("prog_fd", "map_fd", "target_fd", "target_ifindex", "attach_type", "flags")


def tell(call: Call, before: Values, descriptors: Descriptors, *, zeros: bool = False) -> list[FieldStory]:
    """The fields of a call that has returned.

    Args:
        call: the call, with its memory as it is now.
        before: its fields as they were handed over.
        descriptors: knows what descriptors are.
        zeros: tell fields that are 0 too.
    """
    after = call.fields()
    title = call.command or call.name
    pointers = POINTERS.get(call.layout, ())
    stories = []
    for name in _meant(call, before, descriptors):
        value = after.get(name, before[name])
        is_output = value != before[name]
        if not value and not before[name] and not zeros:
            continue
        kind, words = meaning(name, title, call.name)
        text = _text(call, name, kind, value, descriptors, name in pointers)
        stories.append(FieldStory(name, value, text, words, _since(title, name, kind, value), is_output))
    return stories


def _meant(call: Call, values: Values, descriptors: Descriptors) -> Iterator[str]:
    """The fields that count, of those that share a place the one that is meant."""
    attach = type_word(c.ATTACH_TYPE_NAMES, values.get("attach_type", 0))
    by_index = attach.startswith(_ON_INTERFACES)
    by_id = bool(int(values.get("attach_flags", values.get("flags", 0)) or 0) & c.BPF_F_ID)
    parts: tuple[str, ...] = ()
    if call.command == "BPF_LINK_CREATE":
        prog = values["prog_fd"]
        is_extension = isinstance(prog, int) and descriptors.describe(prog).endswith("(ext)")
        parts = ("target_btf_id",) if is_extension else next((p for start, p in _PARTS if attach.startswith(start)), ())
    for name in values:
        last = name.rpartition(".")[2]
        if call.command == "BPF_LINK_CREATE" and name not in _FIXED and not name.startswith(parts or "-"):
            continue
        if (name == "target_fd" and by_index) or (name == "target_ifindex" and not by_index):
            continue
        if (last == "relative_fd" and by_id) or (last == "relative_id" and not by_id):
            continue
        if name in _SHARED and not _is_meant(call.command, name, values, attach, descriptors):
            continue
        yield name


_SHARED = ("attach_prog_fd", "attach_btf_obj_fd", "prog_fd", "map_fd", "new_prog_fd", "new_map_fd", "old_prog_fd",
           "old_map_fd", "prog_cnt")  # fmt: skip


def _is_meant(command: str, name: str, values: Values, attach: str, descriptors: Descriptors) -> bool:
    if command == "BPF_LINK_CREATE":
        return name != ("prog_fd" if attach == "struct_ops" else "map_fd")
    if name == "prog_cnt":
        return "count" not in values
    if name in ("prog_fd", "map_fd"):
        return True
    other = {"attach_prog_fd": "program", "attach_btf_obj_fd": "BTF", "new_map_fd": "map", "old_map_fd": "map"}
    value = values[name]
    what = descriptors.describe(value) if isinstance(value, int) and value else ""
    expected = other.get(name, "program")
    return what.startswith(expected) or (not what.startswith(("program", "map", "BTF")) and expected == "program")


def _text(
    call: Call, name: str, kind: str, value: int | str | bytes, descriptors: Descriptors, is_pointer: bool
) -> str:
    """The value in words."""
    kind, _, detail = kind.partition(" ")
    data = call.buffers.get(name)
    if isinstance(value, bytes):
        return _message(value) if kind == "netlink" else _bytes(value)
    if isinstance(value, str):
        return f'"{value}"' if kind == "name" else value
    if data is not None and is_pointer:
        return _memory(call, name, kind, data)
    if call.name == "ioctl" and name == "argument" and data is not None:
        return _bytes(bytes(data))
    if is_pointer:
        return "nothing" if not value else f"at {value:#x}"
    if kind in ("fd", "pid"):  # -1 as the kernel's header has it, in a field of 32 bits
        signed = -1 if value == 0xFFFFFFFF else value
        return _descriptor(signed, descriptors) if kind == "fd" else f"{signed}{': all' if signed == -1 else ''}"
    if kind == "enum":
        return _enum(detail, value)
    if kind == "event":
        return f"{value}: {perf_event_word(int(call.fields()['type']), value)}"
    if kind == "kernel-type":
        return _kernel_type(call, value)
    if kind == "flags":
        return _flags(detail, value)
    if kind == "ifindex":
        return _interface(value)
    return str(value)


def _descriptor(fd: int, descriptors: Descriptors) -> str:
    if fd == -1:
        return "-1: none"
    what = descriptors.describe(fd) if fd else ""
    return f"{fd}: {what}" if what else str(fd)


def _enum(prefix: str, value: int) -> str:
    if prefix == "attach":
        word = type_word(c.ATTACH_TYPE_NAMES, value)
        return word if word.isdigit() else f"BPF_{word.upper()}"
    return constant(prefix, value) or str(value)


FLAG_PREFIXES = ("BPF_F_", "BPF_F_TEST_", "BPF_F_KPROBE_MULTI_", "BPF_F_UPROBE_MULTI_", "BPF_F_NETFILTER_",
                 "BPF_F_QUERY_", "BPF_")  # fmt: skip


def flag_names(name: str) -> dict[int, str]:
    """The bits of an enum of `pybpf.abi` by their names in the header."""
    found: dict[int, str] = {}
    for member in getattr(abi, name):
        for prefix in FLAG_PREFIXES:
            if getattr(c, prefix + member.name, None) == member.value:
                found.setdefault(member.value, prefix + member.name)
                break
    return found


def _flags(enum: str, value: int) -> str:
    names = []
    rest = value
    for bit, name in flag_names(enum).items():
        if bit and value & bit == bit:
            names.append(name)
            rest &= ~bit
    if rest or not names:
        names.append(hex(rest) if rest else "0")
    return " | ".join(names)


def _kernel_type(call: Call, type_id: int) -> str:
    """``10324: btf_trace_sched_switch``, by the running kernel's BTF, unless the type is of a module or a program."""
    from pybpf.btf import kernel

    if call.fields().get("attach_prog_fd"):
        return str(type_id)
    try:
        return f"{type_id}: {kernel.vmlinux().name_of(type_id)}"
    except (BTFError, OSError):
        return str(type_id)


def _interface(index: int) -> str:
    import _socket

    if not index:
        return "0"
    try:
        return f"{index}: {_socket.if_indextoname(index)}"
    except OSError:
        return str(index)


def _memory(call: Call, name: str, kind: str, data: object) -> str:
    """What a pointer points to."""
    memory = bytes(data)  # type: ignore[call-overload]  # a buffer, as the door says
    if kind == "text":
        return f'"{memory_text(call, name)}"'
    if kind == "log":
        used = len(memory.partition(b"\0")[0])
        return f"{used} characters" if used else f"room for {len(memory)} bytes"
    if kind == "insns":
        return f"{len(memory) // 8} instructions"
    if kind == "blob":
        return f"{len(memory)} bytes"
    if kind in ("u32s", "u64s"):
        return _items(memory, 4 if kind == "u32s" else 8)
    return _bytes(memory)


def _message(message: bytes) -> str:
    """A netlink message: ``NLM_F_REQUEST | NLM_F_ACK, 84 bytes: ...``."""
    from pybpf.syscall import netlink_numbers as numbers

    flags = int.from_bytes(message[6:8], sys.byteorder)
    makes = {"NLM_F_REQUEST", "NLM_F_ACK", "NLM_F_ECHO", "NLM_F_REPLACE", "NLM_F_EXCL", "NLM_F_CREATE"}
    if flags & numbers.NLM_F_DUMP == numbers.NLM_F_DUMP and not flags & numbers.NLM_F_CREATE:
        makes = {"NLM_F_REQUEST", "NLM_F_ACK", "NLM_F_ECHO", "NLM_F_DUMP"}  # which shares its bits with others
    names = [name for name, bit in vars(numbers).items() if name in makes and flags & bit == bit]
    return f"{' | '.join(names)}; {_bytes(message)}"


def _items(memory: bytes, size: int) -> str:
    places = range(0, min(len(memory), SHOWN_ITEMS * size), size)
    numbers = [int.from_bytes(memory[at : at + size], sys.byteorder) for at in places]
    more = len(memory) // size - len(numbers)
    return "[" + ", ".join(map(str, numbers)) + (f", and {more} more]" if more > 0 else "]")


def _bytes(memory: bytes) -> str:
    """``4 bytes: 01 00 00 00 (1)``."""
    unit = "byte" if len(memory) == 1 else "bytes"
    shown = memory[:SHOWN_BYTES].hex(" ")
    if len(memory) > SHOWN_BYTES:
        return f"{len(memory)} {unit}: {shown} ..."
    number = f" ({int.from_bytes(memory, sys.byteorder)})" if len(memory) in (1, 2, 4, 8) else ""
    return f"{len(memory)} {unit}: {shown}{number}" if memory else "no bytes"


def _since(command: str, name: str, kind: str, value: int | str | bytes) -> str:
    """The kernel that brought the field; of a constant, the constant, if it is younger."""
    found = table().get(f"{command}.{name}")
    versions = [found.version] if found is not None else []
    kind, _, detail = kind.partition(" ")
    if isinstance(value, int) and value and kind in ("enum", "flags"):
        text = _enum(detail, value) if kind == "enum" else _flags(detail, value)
        versions += [table()[one].version for one in text.split(" | ") if one in table()]
    return max(versions, key=lambda version: [int(part) for part in version.split(".")], default="")
