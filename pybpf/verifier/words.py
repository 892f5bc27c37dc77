"""What the verifier knows about a register, said in words: ``map_value_or_null(map=t,ks=4,vs=8)`` is a value of map 't'
or NULL.

What is not known here is given back as it stands.

Source: print_reg_state() and reg_type_str() of kernel/bpf/log.c; check_reg_type names of 5.10 in kernel/bpf/verifier.c.
"""

from __future__ import annotations

import re

_VALUE = re.compile(r"(P?)([a-z_]*)(-?(?:0x[0-9a-f]+|\d+)|)(?:\((.*)\))?$", re.S)
_FIELD = re.compile(r"([a-z_0-9]+)=((?:[^,(]|\([^)]*\))*)")
_NUMBER = re.compile(r"-?(?:0x[0-9a-f]+|\d+)$")

_POINTERS = {
    "ctx": "the context",
    "pkt": "a place in the packet",
    "pkt_meta": "a place in the packet's metadata",
    "pkt_end": "the packet's end",
    "flow_keys": "the flow keys",
    "map_ptr": "the map itself",
    "map_key": "a key of a map",
    "map_value": "a value of a map",
    "sock": "a socket",
    "sock_common": "a socket (the common part)",
    "tcp_sock": "a TCP socket",
    "tp_buffer": "the tracepoint's buffer",
    "xdp_sock": "an XDP socket",
    "mem": "memory",
    "rdonly_mem": "read-only memory",
    "ringbuf_mem": "a record of a ring buffer",
    "alloc_mem": "a record of a ring buffer",
    "buf": "a buffer",
    "rdonly_buf": "a read-only buffer",
    "rdwr_buf": "a buffer",
    "func": "a function",
    "dynptr_ptr": "a dynptr",
    "arena": "memory of an arena",
}
"""Type of a pointer, without what stands before and after it -> what it points to."""

_KERNEL = re.compile(r"(?:(trusted|untrusted|rcu|user|percpu|rcu_percpu|percpu_rcu)_)?ptr_(or_null_)?(.*)")
_NUMBERS = frozenset({"", "scalar", "inv"})
SLOT_BYTES = 8
"""A slot of the stack is shown as one letter for each of its bytes."""
_UNSIGNED_MAX = (1 << 64) - 1
_SIGNED_MAX = (1 << 63) - 1


def describe(value: str) -> str:
    """A register's or stack slot's value, as the log has it, in words.

    Args:
        value: what stands behind ``R1=``.
    """
    if len(value) == SLOT_BYTES and not value.strip("?m0rdi"):
        return _slot(value)
    found = _VALUE.match(value)
    if found is None:
        return value
    precise, kind, number, fields_text = found.groups()
    del precise  # "P": that the number matters for a decision, which is the verifier's own business
    fields = dict(_FIELD.findall(fields_text or ""))
    if kind == "fp":
        return "the top of the stack (fp)" if number in ("0", "") else f"a place on the stack, fp{number}"
    if kind in _NUMBERS:
        return _number(number, fields)
    if kind == "p" and number:
        return value
    return _pointer(kind, number, fields, value)


def _pointer(kind: str, number: str, fields: dict[str, str], value: str) -> str:
    base = kind.removesuffix("_or_null")
    null: str | bool = base != kind
    kernel = _KERNEL.match(base)
    if kernel is not None:
        words = f"a kernel pointer to struct {kernel[3] or '?'}" + (f" ({kernel[1]})" if kernel[1] else "")
        null = null or kernel[2]
    elif base in _POINTERS:
        words = _POINTERS[base]
    else:
        return value
    if base.startswith("map_value") and "vs" in fields:
        name = fields.get("map", "")
        words = (
            f"a value of map {name!r} ({fields['vs']} bytes)" if name else f"a value of a map ({fields['vs']} bytes)"
        )
    elif base == "map_ptr" and fields.get("map"):
        words = f"the map {fields['map']!r}"
    elif fields.get("mem_size") or fields.get("sz"):
        words += f" of {fields.get('mem_size') or fields['sz']} bytes"
    offset = fields.get("off", fields.get("imm", number or "0"))
    if offset.lstrip("+") not in ("0", ""):
        words += f", at offset {offset}"
    if base == "pkt":
        checked = fields.get("r", "0")
        words += f", checked up to byte {checked}" if checked != "0" else ""
    variable = _range(fields)
    if variable and base not in ("map_ptr",):
        words += f", plus {variable}"
    return words + (", or NULL" if null else "")


def _number(number: str, fields: dict[str, str]) -> str:
    if number:
        return f"the number {number}"
    return _range(fields) or "any number"


def _range(fields: dict[str, str]) -> str:
    """``a number from 0 to 255``; "" when nothing is known."""
    low, high = _bound(fields, ("umin", "umin_value", "smin_umin")), _bound(fields, ("umax", "umax_value", "smax_umax"))
    signed_low, signed_high = _bound(fields, ("smin", "smin_value")), _bound(fields, ("smax", "smax_value"))
    if high is None and signed_low is not None and signed_high is not None:
        return f"a number from {signed_low} to {signed_high}"
    if high is not None or low is not None:
        top = high if high is not None else signed_high
        return f"a number from {low or 0}" + (f" to {top}" if top not in (None, _UNSIGNED_MAX) else " up")
    if signed_low is not None:
        return f"a number from {signed_low} up"
    if signed_high is not None and signed_high != _SIGNED_MAX:
        return f"a number up to {signed_high}, maybe negative"
    return ""


def _bound(fields: dict[str, str], names: tuple[str, ...]) -> int | None:
    for name, text in fields.items():
        # Newer kernels join bounds that are equal: smax=umax=smax32=umax32=255.
        if name in names and _NUMBER.match(text.rpartition("=")[2]):
            last = text.rpartition("=")[2]
            return int(last, 16) if "0x" in last else int(last)
    return None


def _slot(value: str) -> str:
    """Eight letters, one for each byte, the highest first: ``mmmm????``."""
    if not value.strip("?"):
        return "never written"
    if not value.strip("0"):
        return "zero"
    if "?" in value:
        return f"{len(value) - value.count('?')} of {len(value)} bytes written"
    return "written" if not value.strip("m0") else value
