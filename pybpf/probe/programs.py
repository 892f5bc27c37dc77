"""Which types of programs this kernel loads, and which helpers and kernel functions they may call.

Each question is one BPF_PROG_LOAD of the smallest program. Nothing is attached.

Source: tools/lib/bpf/libbpf_probes.c and kernel/bpf/verifier.c of the kernel.
"""

from __future__ import annotations

from pybpf import constants as c
from pybpf import syscall
from pybpf.asm import slots
from pybpf.asm.instruction import Instruction, encode
from pybpf.errors import ENOTSUPP, BTFError
from pybpf.probe.answer import Answer, ask, kept
from pybpf.probe.names import number_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pybpf.btf.reader import BTF
    from pybpf.syscall.fd import FdLike

EXIT = Instruction(0x95)
MOVE = 0xB7
RETURN_0 = encode([Instruction(MOVE), EXIT])

FIELDS: dict[int, dict[str, Any]] = {
    c.BPF_PROG_TYPE_CGROUP_SOCK_ADDR: {"expected_attach_type": c.BPF_CGROUP_INET4_CONNECT},
    c.BPF_PROG_TYPE_CGROUP_SOCKOPT: {"expected_attach_type": c.BPF_CGROUP_GETSOCKOPT},
    c.BPF_PROG_TYPE_SK_LOOKUP: {"expected_attach_type": c.BPF_SK_LOOKUP},
    c.BPF_PROG_TYPE_LIRC_MODE2: {"expected_attach_type": c.BPF_LIRC_MODE2},
    c.BPF_PROG_TYPE_NETFILTER: {"expected_attach_type": c.BPF_NETFILTER},
    c.BPF_PROG_TYPE_SYSCALL: {"prog_flags": c.BPF_F_SLEEPABLE},
    c.BPF_PROG_TYPE_TRACING: {"expected_attach_type": c.BPF_TRACE_RAW_TP, "attach_btf_id": 1},
    c.BPF_PROG_TYPE_LSM: {"expected_attach_type": c.BPF_LSM_MAC, "attach_btf_id": 1},
    c.BPF_PROG_TYPE_EXT: {"attach_btf_id": 1},
    c.BPF_PROG_TYPE_STRUCT_OPS: {"attach_btf_id": 1},
}
"""What programs of a type need beside their instructions. Type 1 of the kernel's BTF is no target of any program."""

TELLING: dict[int, str] = {
    c.BPF_PROG_TYPE_TRACING: "attach_btf_id 1 is not a typedef",
    c.BPF_PROG_TYPE_LSM: "attach_btf_id 1 is not a function",
    c.BPF_PROG_TYPE_EXT: "Cannot replace kernel functions",
}
"""What the kernel says about that target when it knows the program type."""

NO_HELPER = (
    "invalid func ",
    "unknown func ",
    "program of this type cannot use helper ",
    "helper call is not allowed in probe",  # at this attach point
)
NO_KFUNC = ("calling kernel function", "BPF_CALL uses reserved fields")
"""The second is what kernels before Linux 5.13 say."""
KFUNC_TYPES = (
    c.BPF_PROG_TYPE_SYSCALL,
    c.BPF_PROG_TYPE_TRACING,
    c.BPF_PROG_TYPE_SCHED_CLS,
    c.BPF_PROG_TYPE_XDP,
    c.BPF_PROG_TYPE_STRUCT_OPS,
    c.BPF_PROG_TYPE_CGROUP_SKB,
    c.BPF_PROG_TYPE_KPROBE,
    c.BPF_PROG_TYPE_SOCKET_FILTER,
)
"""Program types that are tried when it is asked whether any may call a function: each stands for a set of the kernel
(`enum btf_kfunc_hook`)."""


def load(program_type: int, code: bytes, *, log: str | None = "", **fields: Any) -> Answer:
    """Ask by loading a program."""
    return ask(syscall.prog_load, program_type, code, log=log, **fields)


def has_program_type(name: int | str, *, token_fd: FdLike | None = None) -> Answer:
    """Whether programs of this type can be loaded.

    Tracing programs are asked for by a raw tracepoint, which needs no trampoline: see `has_attach_type` for fentry.

    Raises:
        ValueError: the name is unknown.
    """
    number = number_of("program type", name)
    yes = (ENOTSUPP,) if number == c.BPF_PROG_TYPE_STRUCT_OPS else ()
    fields = {**FIELDS.get(number, {}), "token_fd": token_fd}

    def find() -> Answer:
        return load(number, RETURN_0, log=TELLING.get(number, ""), yes=yes, **fields)

    return kept(("program type", number), find, token_fd)


def has_helper(program: int | str, helper: int | str, *, token_fd: FdLike | None = None) -> Answer:
    """Whether programs of a type may call a helper.

    A program type of which only some attach points may call it is asked at the one of `FIELDS`.

    Args:
        program: the program type: ``"xdp"``.
        helper: ``"fib_lookup"``, ``"bpf_fib_lookup"`` or its number.

    Raises:
        ValueError: a name is unknown.
    """
    kind, number = number_of("program type", program), number_of("helper", helper)
    code = encode([Instruction(slots.CALL, imm=number), EXIT])
    return kept(("helper", kind, number), lambda: _ask_call(kind, code, NO_HELPER, token_fd), token_fd)


def has_kfunc(name: str, program: int | str | None = None, *, token_fd: FdLike | None = None) -> Answer:
    """Whether a function of the kernel (or of a loaded module with BTF) may be called by programs.

    Args:
        name: the function: ``"bpf_task_acquire"``.
        program: the program type; None for any.

    Raises:
        ValueError: the program type's name is unknown.
    """
    kind = None if program is None else number_of("program type", program)
    return kept(("kfunc", name, kind), lambda: _find_kfunc(name, kind, token_fd), token_fd)


def _find_kfunc(name: str, kind: int | None, token_fd: FdLike | None) -> Answer:
    from pybpf.btf.kinds import KIND_FUNC
    from pybpf.loading.kernel_btf import kernel_btfs

    found: tuple[BTF, int] | None = None
    try:
        for btf in kernel_btfs():
            ids = btf.own_ids(name, KIND_FUNC)
            if ids:
                found = btf, ids[0]
                break
    except (BTFError, OSError) as error:
        return Answer("cannot tell", "the kernel's BTF", reason=str(error))
    if found is None:
        return Answer("no", "the kernel's BTF", reason=f"it has no function {name}")
    answer = Answer("cannot tell")
    for one in KFUNC_TYPES if kind is None else (kind,):
        answer = _ask_kfunc(one, *found, token_fd)
        if answer:
            break
    if kind is None and answer.verdict == "no":
        answer.reason = "nor may programs of other types call it, as far as they were tried"
    return answer


def _ask_kfunc(kind: int, btf: BTF, type_id: int, token_fd: FdLike | None) -> Answer:
    from pybpf.loading.kernel_btf import ModuleDescriptors

    call = Instruction(slots.CALL, src=c.BPF_PSEUDO_KFUNC_CALL, imm=type_id)
    if btf.name == "vmlinux":
        return _ask_call(kind, encode([call, EXIT]), NO_KFUNC, token_fd)
    call.off = 1
    modules = ModuleDescriptors()
    try:
        return _ask_call(kind, encode([call, EXIT]), NO_KFUNC, token_fd, fd_array=[0, modules.get(btf.name).fileno()])
    finally:
        modules.close()


def _ask_call(kind: int, code: bytes, refusals: tuple[str, ...], token_fd: FdLike | None, **more: Any) -> Answer:
    """Load a program that calls something with registers that hold nothing: the verifier complains about the callee,
    or about the arguments, and then it knows the callee."""
    fields = _target(kind)
    if fields is None:
        return Answer(
            "cannot tell", "BPF_PROG_LOAD", reason="there is no target that a program of this type could have"
        )
    answer = load(kind, code, token_fd=token_fd, **fields, **more)
    if not answer.is_known or answer or not answer.log:
        return answer
    if any(words in answer.log for words in refusals):
        if _may_use_all():
            return answer
        return Answer(
            "cannot tell",
            answer.command,
            answer.errno,
            answer.log,
            "CAP_BPF or CAP_PERFMON is missing, which it may need",
        )
    verdict = Answer("yes", answer.command, answer.errno, answer.log)
    if f"({slots.CALL:02x}) call " not in answer.log:
        verdict.verdict = "cannot tell"  # the verifier did not come as far as the call
    return verdict


def _target(kind: int) -> dict[str, Any] | None:
    """What a program of this type needs to be verified, which types with a target in the kernel's BTF are then."""
    from pybpf.btf import kernel
    from pybpf.errors import ObjectError
    from pybpf.loading.kernel_btf import find_attach_target

    try:
        if kind == c.BPF_PROG_TYPE_TRACING:
            target, _ = find_attach_target("sched_switch", c.BPF_TRACE_RAW_TP)
            return {"expected_attach_type": c.BPF_TRACE_RAW_TP, "attach_btf_id": target}
        if kind == c.BPF_PROG_TYPE_LSM:
            target, _ = find_attach_target("file_open", c.BPF_LSM_MAC)
            return {"expected_attach_type": c.BPF_LSM_MAC, "attach_btf_id": target}
        if kind == c.BPF_PROG_TYPE_STRUCT_OPS:
            return {"attach_btf_id": kernel.vmlinux().find("tcp_congestion_ops").id}
    except (BTFError, ObjectError, OSError):
        return None
    return None if kind == c.BPF_PROG_TYPE_EXT else FIELDS.get(kind, {})


def _may_use_all() -> bool:
    """Whether the kernel would give this process every helper: some are given to the privileged only."""
    from pybpf.probe.privileges import CAP_BPF, CAP_PERFMON, has_capability, is_in_user_namespace

    return has_capability(CAP_BPF) and has_capability(CAP_PERFMON) and not is_in_user_namespace()
