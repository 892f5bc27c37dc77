"""Context arguments: functions tagged ``arg:ctx``, told to kernels that do not know the tag.

A global function may say with the declaration tag ``arg:ctx`` that a parameter is the program's context, whatever its C
type. Kernels before 6.8 go by the type: it must be a pointer to the struct that the program's type calls its context.

Rules of this module:

* Pure: type information in, type information out. Ids stay, types are only added.
* Nothing that is there is changed. A function that needs it gets a twin whose parameter has the right type, for each
  kind of context, and the programs of that kind name the twin in their function information.
* Only parameters are changed of which it is known that the tag was meant so: ``void *``, ``struct pt_regs *`` for
  kprobes, ``u64 *`` for raw tracepoints.

Source: bpf_program_fixup_func_info() of libbpf.
"""

from __future__ import annotations

from struct import unpack_from

from pybpf import constants as c
from pybpf.btf.kinds import KIND_DECL_TAG, LINKAGE_GLOBAL, DeclTag, Func, FuncProto, Int, Ptr, Struct, Typedef, Void
from pybpf.btf.reader import BTF
from pybpf.btf.writer import BTFEditor
from pybpf.elf.datasec import ids_of_kinds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pybpf.elf.linking import Image
    from pybpf.spec import ProgramSpec

TAG = "arg:ctx"

CONTEXTS = {
    c.BPF_PROG_TYPE_CGROUP_DEVICE: "bpf_cgroup_dev_ctx",
    c.BPF_PROG_TYPE_CGROUP_SKB: "__sk_buff",
    c.BPF_PROG_TYPE_CGROUP_SOCK: "bpf_sock",
    c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR: "bpf_sock_addr",
    c.BPF_PROG_TYPE_CGROUP_SOCKOPT: "bpf_sockopt",
    c.BPF_PROG_TYPE_CGROUP_SYSCTL: "bpf_sysctl",
    c.BPF_PROG_TYPE_FLOW_DISSECTOR: "__sk_buff",
    c.BPF_PROG_TYPE_KPROBE: "bpf_user_pt_regs_t",
    c.BPF_PROG_TYPE_LWT_IN: "__sk_buff",
    c.BPF_PROG_TYPE_LWT_OUT: "__sk_buff",
    c.BPF_PROG_TYPE_LWT_SEG6LOCAL: "__sk_buff",
    c.BPF_PROG_TYPE_LWT_XMIT: "__sk_buff",
    c.BPF_PROG_TYPE_NETFILTER: "bpf_nf_ctx",
    c.BPF_PROG_TYPE_PERF_EVENT: "bpf_perf_event_data",
    c.BPF_PROG_TYPE_RAW_TRACEPOINT: "bpf_raw_tracepoint_args",
    c.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE: "bpf_raw_tracepoint_args",
    c.BPF_PROG_TYPE_SCHED_ACT: "__sk_buff",
    c.BPF_PROG_TYPE_SCHED_CLS: "__sk_buff",
    c.BPF_PROG_TYPE_SK_LOOKUP: "bpf_sk_lookup",
    c.BPF_PROG_TYPE_SK_MSG: "sk_msg_md",
    c.BPF_PROG_TYPE_SK_REUSEPORT: "sk_reuseport_md",
    c.BPF_PROG_TYPE_SK_SKB: "__sk_buff",
    c.BPF_PROG_TYPE_SOCK_OPS: "bpf_sock_ops",
    c.BPF_PROG_TYPE_SOCKET_FILTER: "__sk_buff",
    c.BPF_PROG_TYPE_XDP: "xdp_md",
}
"""The struct of the context by program type; types that are not here have none with a name."""

_REGISTERS = {
    c.BPF_PROG_TYPE_KPROBE: ("pt_regs",),
    c.BPF_PROG_TYPE_PERF_EVENT: ("pt_regs", "user_pt_regs", "user_regs_struct"),
}
_RAW = (c.BPF_PROG_TYPE_RAW_TRACEPOINT, c.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE)


def fix_context_args(
    data: bytes, programs: Iterable[tuple[ProgramSpec, Image]]
) -> tuple[bytes, dict[str, dict[int, int]]]:
    """Give the tagged functions that programs reach twins with the type that older kernels want.

    Args:
        data: the object's BTF as it would be given to the kernel.
        programs: each program that will be loaded, and its linked code.

    Returns:
        The BTF with the twins, and name of a program -> id of a function -> id of the twin that its function
        information has to name.

    Raises:
        BTFError: the BTF is malformed.
    """
    btf = BTF.from_bytes(data)
    tags = _tags(btf)
    twins = _Twins(btf)
    changed: dict[str, dict[int, int]] = {}
    for program, image in programs:
        context = CONTEXTS.get(program.type_number)
        if context is None:
            continue
        for func_id in _functions(image):
            indexes = [index for index in tags.get(func_id, ()) if _is_wrong(btf, program, func_id, index, context)]
            if indexes:
                changed.setdefault(program.name, {})[func_id] = twins.make(func_id, context, indexes)
    return (twins.editor.to_bytes() if changed else data), changed


def _tags(btf: BTF) -> dict[int, list[int]]:
    """Global function -> indexes of its tagged parameters."""
    found: dict[int, list[int]] = {}
    for id in ids_of_kinds(btf, KIND_DECL_TAG):
        tag = btf.type(id)
        if not isinstance(tag, DeclTag) or tag.name != TAG:
            continue
        func = btf.type(tag.type_id)
        proto = btf.type(func.type_id) if isinstance(func, Func) and func.linkage == LINKAGE_GLOBAL else None
        if isinstance(proto, FuncProto) and 0 <= tag.component_index < len(proto.params):
            found.setdefault(tag.type_id, []).append(tag.component_index)
    return found


def _functions(image: Image) -> list[int]:
    """The ids of the functions of a linked program."""
    size = image.func_info_rec_size
    return [unpack_from("=I", image.func_info, at + 4)[0] for at in range(0, len(image.func_info), size or 1)]


def _is_wrong(btf: BTF, program: ProgramSpec, func_id: int, index: int, context: str) -> bool:
    """Whether a kernel that goes by types would not take a parameter for the context, though it is meant to be."""
    func = btf.type(func_id)
    proto = btf.type(func.type_id) if isinstance(func, Func) else None
    pointer = btf.resolve(proto.params[index].type_id) if isinstance(proto, FuncProto) else None
    if not isinstance(pointer, Ptr):
        return False
    kind = program.type_number
    named = btf.type(btf.skip_modifiers(pointer.type_id))
    if isinstance(named, Typedef) and named.name == CONTEXTS[c.BPF_PROG_TYPE_KPROBE] and kind in _REGISTERS:
        return False
    target = btf.resolve(pointer.type_id)
    if isinstance(target, Void):
        return True
    if isinstance(target, Struct):
        return target.name != context and target.name in _REGISTERS.get(kind, ())
    return isinstance(target, Int) and target.size == 8 and kind in _RAW


class _Twins:
    """Makes twins, one for each function and context."""

    def __init__(self, btf: BTF) -> None:
        self._btf = btf
        self.editor = BTFEditor(btf)
        self._made: dict[tuple[int, str], int] = {}
        self._pointers: dict[str, int] = {}

    def make(self, func_id: int, context: str, indexes: list[int]) -> int:
        """The id of a function like another, whose parameters of these indexes point to the context."""
        known = self._made.get((func_id, context))
        if known is not None:
            return known
        func = self._btf.type(func_id)
        assert isinstance(func, Func)
        proto = self._btf.type(func.type_id)
        assert isinstance(proto, FuncProto)
        pointer = self._pointer(context)
        params = [
            (param.name, pointer if index in indexes else param.type_id) for index, param in enumerate(proto.params)
        ]
        twin = self.editor.add_func(func.name, self.editor.add_func_proto(proto.type_id, params), func.linkage)
        for index in indexes:
            self.editor.add_decl_tag(TAG, twin, index)
        self._made[func_id, context] = twin
        return twin

    def _pointer(self, context: str) -> int:
        if context not in self._pointers:
            self._pointers[context] = self.editor.add_ptr(self.editor.add_struct(context, 0, []))
        return self._pointers[context]
