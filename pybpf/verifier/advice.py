"""What a rejection means, and how to mend it: a table of the verifier's sentences.

A row of the table is one kind of rejection: the sentence as the kernel writes it (a regular expression; groups may be
named), what it means in one sentence, and what to do about it. In both, ``{name}`` is a group of the expression.

The first row that fits counts, so special rows stand before general ones. Sentences differ between kernels; each row
has the wordings of Linux 5.10, 6.1, 6.12, 6.18 and 7.3, as these kernels carry them.

Source: kernel/bpf/verifier.c, kernel/bpf/log.c, and since 7.2 kernel/bpf/{cfg,states,backtrack}.c.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from re import Pattern

REGISTER = r"(?P<register>R\d+|\S+)"

_UP_TO_512 = r"(?:[1-9]\d?|[1-4]\d\d|50\d|51[0-2])"

_ROWS: tuple[tuple[str, str, str, str], ...] = (
    # Pointers that may be NULL, and numbers that are no pointers
    (
        "null-pointer",
        rf"{REGISTER} invalid mem access '\w*or_null\w*'",
        "the pointer in {register} may be NULL here, and is used without having been compared with it",
        "Compare the pointer with NULL before its first use, and use it only where it is not NULL: "
        "`if (!value) return 0;`. bpf_map_lookup_elem() and the like give NULL when there is nothing.",
    ),
    (
        "not-a-pointer",
        rf"{REGISTER} invalid mem access '(?:scalar|inv)'",
        "{register} is a number for the verifier, and memory cannot be read or written through a number",
        "Kernel and user pointers that are found inside other memory are numbers: read through them with "
        "bpf_probe_read_kernel(), bpf_probe_read_user() or BPF_CORE_READ(). If it was a real pointer, it was lost on "
        "the way: by arithmetic, by storing a part of it, or by a packet-changing helper.",
    ),
    (
        "packet-end-access",
        rf"{REGISTER} invalid mem access '(?P<type>pkt_end|map_ptr|fp|func)'",
        "{register} holds {type}, which marks a place and cannot be read or written through",
        "Use this pointer only for comparisons or as an argument; access memory through the pointer to the data.",
    ),
    (
        "other-memory",
        rf"{REGISTER} invalid mem access '(?P<type>[^']+)'",
        "a pointer of type {type} in {register} cannot be accessed like this",
        "Read such memory with the helper that is made for it (bpf_probe_read_kernel() for kernel memory), or pass the "
        "pointer to a helper that takes it.",
    ),
    (
        "null-argument",
        r"Possibly NULL pointer passed to (?P<argument>.+)|R\d+ type=\w*_or_null\w* expected=.*",
        "a pointer that may be NULL is passed to a function that does not take NULL",
        "Compare the pointer with NULL first, and make the call only where it is not NULL.",
    ),
    # Registers and stack that hold nothing
    (
        "uninitialised-register",
        rf"{REGISTER} !read_ok",
        "{register} is read, but on this path nothing has been put into it",
        "Give the variable a value on every path. After a call R1 to R5 are gone: what must survive a call belongs "
        "into "
        "a variable that is used afterwards (R6 to R9). A program that returns must set its return value (R0).",
    ),
    (
        "uninitialised-stack",
        r"invalid (?:indirect )?(?:read|access) (?:from|to) (?:the )?stack (?:R\d+ )?(?:var_)?off \S+?\+\d+ size \d+"
        r"|invalid indirect read from stack(?: R\d+)?(?: var_off| off) .*"
        rf"|invalid (?:read from|indirect access to|indirect read from) stack R\d+ off=-{_UP_TO_512} size=\d+",
        "bytes of the stack are handed over or read that were never written",
        "Clear the whole variable first, padding included: `struct key key = {{}};` is not enough where the compiler "
        "skips padding, `__builtin_memset(&key, 0, sizeof(key));` is.",
    ),
    (
        "stack-bounds",
        r"invalid (?:(?:indirect )?(?:access to|read from|write to) )?stack (?:type )?(?:R\d+ )?(?:var_)?off=?.*"
        r"|invalid (?:unbounded )?variable-offset.* stack .*",
        "memory outside the function's stack is accessed: it has 512 bytes, and offsets below its top",
        "Keep indices inside the array on the stack (compare with its size first); put large buffers into a map of "
        "type BPF_MAP_TYPE_PERCPU_ARRAY with one entry instead of onto the stack.",
    ),
    (
        "stack-variable-offset",
        r".*variable(?:[- ]offset)? stack access prohibited.*|.*variable stack access.*|unbounded variable-offset.*",
        "the stack is accessed at a place that depends on a variable",
        "Use a constant index, or an array in a map instead of one on the stack.",
    ),
    # Bounds
    (
        "packet-bounds",
        rf"invalid access to packet, off=(?P<offset>-?\d+) size=(?P<size>-?\d+), .*"
        rf"|{REGISTER} offset is outside of the "
        r"(?:packet|allowed memory range)",
        "the packet may be shorter than what is read or written here",
        "Compare with the end first: `if ((void *)(header + 1) > data_end) return XDP_PASS;`. The check must be on the "
        "same pointer (with the same variable part) that is used afterwards, and be done again after helpers that "
        "change the packet.",
    ),
    (
        "map-value-bounds",
        r"invalid access to map value(?: pointer)?, value_size=(?P<value_size>\d+) off=(?P<offset>-?\d+).*",
        "byte {offset} of a map's value is accessed, and the value has {value_size} bytes",
        "Keep the offset below the size of the value: compare the index with the array's length first, or mask it: "
        "`index &= LENGTH - 1` where LENGTH is a power of two. Give the map a larger value if it should have room.",
    ),
    (
        "memory-bounds",
        r"invalid access to (?:memory|map key|flow keys|tracepoint|.* buffer|.*BTF), ?.*off=(?P<offset>-?\d+) size=.*"
        r"|access beyond (?P<what>.*)|access beyond the end of member .*",
        "more memory is accessed than there is at this pointer",
        "Compare the offset plus the size with the memory's size before the access.",
    ),
    (
        "unbounded-memory",
        rf"{REGISTER} unbounded (?:memory access|size), .*",
        "{register}, an index or size, has no upper bound that the verifier knows",
        "Bound it by a comparison on the same variable just before the use, `if (size > sizeof(buffer)) return 0;`, or "
        "by a mask, `size &= sizeof(buffer) - 1`, where the size is a power of two.",
    ),
    (
        "negative-minimum",
        rf"{REGISTER} min value is negative, .*",
        "{register}, an index or size, may be negative",
        "Make the variable unsigned, or check `if (index < 0) return 0;` on the very variable that is used. A compiler "
        "that compares a 32-bit copy loses the bound: keep index and comparison in one type (__u64).",
    ),
    (
        "maximum-outside",
        rf"{REGISTER} (?P<which>max|min) value is outside of the (?:allowed memory|array|map value|stack|.*) ?range",
        "the {which}imum of {register}, an index or size, lies outside of the memory that it is for",
        "Narrow the comparison before the access: it must hold for the offset plus the size of the access, not only "
        "for the offset.",
    ),
    (
        "zero-size",
        rf"(?:{REGISTER} )?invalid zero-sized read.*",
        "the size that is passed may be 0, and this helper wants at least 1",
        "Check that the size is not 0 before the call: `if (!size) return 0;`, after its upper bound has been checked.",
    ),
    (
        "pointer-out-of-range",
        r"value (?P<value>-?\d+) makes (?P<pointer>\S+) pointer be out of bounds"
        r"|math between (?P<other>\S+) pointer and "
        r"(?:-?\d+|register with unbounded min value) is not allowed|\S+ pointer offset -?\d+ is not allowed",
        "a pointer is moved further than any access could reach",
        "Bound the number that is added to the pointer before the addition: make it unsigned and compare it with its "
        "largest legal value.",
    ),
    (
        "misaligned",
        r"misaligned (?P<what>\w* ?)access off .*",
        "memory is accessed at an address that is not a multiple of the access's size",
        "Access it at a multiple of its size, or copy it byte by byte; in packets use `__builtin_memcpy()` into a "
        "variable, and on the stack `__attribute__((aligned(8)))`.",
    ),
    # Context
    (
        "context-access",
        r"invalid bpf_context access off=(?P<offset>-?\d+) size=(?P<size>\d+)",
        "the context has no field at offset {offset} that this kind of program may access with {size} bytes",
        "Use a field that this program type has (and that may be written, if it is written), with the field's own "
        "size; check that SEC() names the type that you mean. Fields of tracing arguments are read by their type from "
        "vmlinux.h.",
    ),
    (
        "context-bounds",
        r"invalid access to context.*|negative offset ctx ptr R\d+ off=-?\d+ disallowed",
        "memory outside the context is accessed",
        "Access the context by the fields of its struct; loops over it must stay inside.",
    ),
    (
        "modified-context",
        r"dereference of modified (?:ctx|\w+) ptr R\d+ off=-?\d+ disallowed|variable ctx access var_off=.*",
        "the pointer to the context was changed before it was used: fields must be at fixed offsets of the original",
        "Access the field through the context's own name (`ctx->field`), not through a pointer computed from it; "
        "`barrier_var()` or `volatile` keeps the compiler from doing so.",
    ),
    # Resources and locks
    (
        "unreleased-reference",
        r"Unreleased reference id=(?P<id>\d+) alloc_insn=(?P<instruction>\d+)",
        "what instruction {instruction} acquired is not given back on this path",
        "Release it on every path, also where the function returns early: bpf_sk_release() for sockets, "
        "bpf_ringbuf_submit() or bpf_ringbuf_discard() for records, the matching release kfunc otherwise.",
    ),
    (
        "reference-at-tail-call",
        r"(?:tail_call|bpf_throw|bpf_exit) would lead to reference leak|BPF_LD_\[ABS\|IND\] "
        r"(?:cannot be mixed with socket references|would lead to reference leak)",
        "something acquired is still held where the program may end",
        "Release it before the tail call, bpf_throw() or the packet load.",
    ),
    (
        "not-a-reference",
        r"func \S+#\d+ reference has not been acquired before|R\d+ must be referenced.*|.*release.*expects referenced.*"
        r"|arg \d+ is an unacquired reference|.* expects? a referenced .*",
        "something is released that this program did not acquire",
        "Release exactly the pointer that the acquiring function gave, once, and not a copy that was moved.",
    ),
    (
        "lock-held",
        r"function calls are not allowed while holding a lock|.*(?:inside|within) bpf_spin_lock.*region"
        r"|bpf_spin_unlock is missing|.*bpf_spin_lock-ed region.*",
        "a spin lock is held here where that is not allowed",
        "Between bpf_spin_lock() and bpf_spin_unlock() there may be only simple code, no calls and no return: compute "
        "before, lock, store, unlock.",
    ),
    (
        "two-locks",
        r"Locking two bpf_spin_locks are not allowed|.*unlock of different lock"
        r"|bpf_spin_unlock without taking a lock.*",
        "locks are not taken and given back in pairs",
        "Hold one lock at a time and unlock the one that was locked.",
    ),
    # Flow
    (
        "endless-loop",
        r"infinite loop detected at insn (?P<instruction>\d+)",
        "the loop at instruction {instruction} comes back to the same state: it may never end",
        "Let each round change a counter that ends the loop, with a constant bound: `for (i = 0; i < 64; i++)`; or use "
        "bpf_loop() (Linux 5.17) or bpf_for() (6.4).",
    ),
    (
        "back-edge",
        r"back-edge from insn (?P<from>\d+) to (?P<to>\d+)|back-edge is not allowed",
        "the program jumps backwards, and loops need more privileges",
        "Load it with CAP_BPF and CAP_PERFMON (Linux 5.3 allows bounded loops then), or unroll the loop: "
        "`#pragma unroll`.",
    ),
    (
        "too-complex",
        r"BPF program is too large\. Processed (?P<count>\d+) insn",
        "the verifier gave up after {count} instructions: the program has too many paths for its budget of a million",
        "Make less to walk over: shorter loops or bpf_loop(), global functions (not static: they are verified once), "
        "fewer branches that keep different values alive, or a tail call. `pybpf verify` shows what each program "
        "costs.",
    ),
    (
        "too-many-jumps",
        r"The sequence of (?P<count>\d+) jumps is too complex\.?",
        "more than {count} branches are open at once",
        "Split the program: move a part with many branches into a global function, use bpf_loop(), or a tail call.",
    ),
    (
        "unreachable",
        r"unreachable insn (?P<instruction>\d+)",
        "instruction {instruction} can never be reached",
        "Take the dead code away. Compilers do not leave any; look for a jump or exit in hand-written assembly.",
    ),
    (
        "falls-off-the-end",
        r"last insn is not an exit or jmp|jump out of range from insn .*|.*no exit.*",
        "the program, or a jump, leaves the function without an exit",
        "Let each path end in `return` (exit). In C this happens when the compiler knows that a path is undefined: an "
        "endless loop, __builtin_unreachable(), or a missing return.",
    ),
    (
        "recursion",
        r"recursive call.*|.*recursive.*|back-edge from insn .* \(call\)",
        "functions call each other in a circle",
        "Turn the recursion into a bounded loop.",
    ),
    (
        "frames",
        r"the call stack of (?P<count>\d+) frames is too deep ?!?",
        "{count} functions are active at once, more than the verifier allows",
        "Make some of them __always_inline.",
    ),
    (
        "combined-stack",
        r"combined stack size of (?P<calls>\d+) calls is (?P<size>\d+)\. Too large.*"
        r"|stack size of .* is (?P<other>\d+)\. "
        r"Too large|stack size \d+(?: of extable)? is too large.*",
        "the functions that are active at once use too much stack together: there are 512 bytes",
        "Move buffers from the stack into a per-CPU array of one entry, or share them between the functions.",
    ),
    (
        "tail-call-stack",
        r"tail_calls are not allowed when call stack of previous frames is (?P<size>\d+) bytes\. Too large",
        "a function that makes tail calls is called with more than 256 bytes of stack in use",
        "Make tail calls from the program itself, or use less stack in what calls the function.",
    ),
    (
        "per-cpu-variables",
        r"no direct value access support for this map type",
        "the program reaches into the memory of a map that has none for it: on this kernel a per-CPU global variable's",
        'Variables in SEC(".percpu") need Linux 7.3. Older kernels have maps of BPF_MAP_TYPE_PERCPU_ARRAY instead.',
    ),
    # Calls
    (
        "no-jit",
        r"JIT is required (?:for|to) .+|JIT does not support .+|.+ not allowed in non-JITed programs.*",
        "this needs programs to be compiled to machine code, and this kernel does not, or not for this",
        "Switch the JIT on (`sysctl net.core.bpf_jit_enable=1`); a kernel that was built without has neither "
        "callbacks, kernel functions, arenas nor tail calls from functions.",
    ),
    (
        "unknown-helper",
        r"invalid func (?P<name>\S+)#(?P<number>\d+)|unknown func (?P<helper>\S+?)#\d+|"
        r"program of this type cannot use helper (?P<forbidden>\S+?)#\d+",
        "this kind of program has no such helper on this kernel",
        "Use a helper that this program type has (the kernel's list: `bpftool feature probe`), another program type, "
        "or "
        "a newer kernel; guard newer helpers with bpf_core_enum_value_exists(enum bpf_func_id, ...).",
    ),
    (
        "gpl-only",
        r"cannot call GPL-restricted function from non-GPL compatible program"
        r"|cannot call a GPL-restricted function .*",
        "this helper is only for programs whose licence is compatible with the GPL",
        'Give the program such a licence, `char LICENSE[] SEC("license") = "GPL";` (or "Dual BSD/GPL", "Dual '
        'MIT/GPL"), '
        "or do without the helper.",
    ),
    (
        "kfunc-not-allowed",
        r"calling kernel function (?P<name>\S+) is not allowed|kernel function .* is not allowed.*"
        r"|calling invalid kernel function.*|.*kernel btf_id \d+ is not a kernel function",
        "this kind of program may not call this kernel function",
        "Call it from a program type that it is registered for, or use a helper instead.",
    ),
    (
        "sleeping",
        r".*might sleep in a non-sleepable prog.*|.*sleepable (?:helper|kfunc|global function) .*"
        r"|.*non-sleepable prog.*"
        r"|helper call might sleep .*|kernel func(?:tion)? .* is sleepable within .*|.*is sleepable.*",
        "a function that may sleep is called where sleeping is not allowed",
        'Make the program sleepable where its kind allows it (`SEC("fentry.s/...")`, `lsm.s`, `uprobe.s`, `iter.s`, '
        "`syscall`), or use the variant that does not sleep.",
    ),
    (
        "argument-constant",
        rf"{REGISTER} (?:is not a (?:known )?const(?:ant)?.*|must be a (?:known )?constant.*|must be a known .*)"
        r"|tail_call abusing map_ptr|map pointer .* must be.*|arg#\d+ .*must be a (?:known )?const(?:ant)?.*",
        "an argument must be known when the program is verified, and here it depends on the path or on data",
        "Pass a constant: use two calls, one on each path, instead of one call with a variable.",
    ),
    (
        "argument-type",
        rf"{REGISTER} type=(?P<type>\S+) expected=(?P<expected>.*)",
        "{register} holds {type}, and the function wants {expected}",
        "Pass what the function's prototype says: `&variable` for a pointer to memory (fp), the map itself for a map, "
        "the unchanged ctx for the context. A number (scalar, inv) is no pointer: copy what it points to with "
        "bpf_probe_read_kernel() onto the stack first.",
    ),
    (
        "packet-helper",
        r"helper access to the packet is not allowed|helper call is not allowed in probe",
        "this helper cannot be given memory of the packet here",
        "Copy the bytes from the packet onto the stack first, and pass that.",
    ),
    (
        "caller-arguments",
        r"Caller passes invalid args into func#(?P<function>\d+).*|[Aa]rg#\d+ .*(?:but|is not|type).*"
        r"|Global func(?:tion)? .*|func#\d+ .*invalid args.*|.*R\d+ is not a scalar",
        "a call of a global function does not fit the types of its arguments or its result",
        "Global functions are verified by their types alone: let them take numbers, the context, or pointers that they "
        "compare with NULL themselves, and return a number; or make the function static.",
    ),
    # What pointers may be used for
    (
        "leak",
        rf"{REGISTER} leaks addr (?P<where>.*)|R0 leaks addr as return value",
        "a kernel address would get out",
        "Return and store numbers, not pointers; copy the data instead of its address. With CAP_PERFMON addresses may "
        "be stored in maps.",
    ),
    (
        "pointer-arithmetic",
        r"R\d+ (?:32-bit )?pointer (?P<operator>\S+ )?(?:arithmetic|pointer)(?: (?:on"
        r"|with) (?P<what>.*?))? ?prohibited.*"
        r"|R\d+ bitwise operator \S+ on pointer prohibited|R\d+ subtraction from stack pointer prohibited"
        r"|R\d+ tried to (?:add|subtract|sub) .*",
        "a pointer is computed with in a way that would hide where it points",
        "Only add numbers to pointers (and subtract two packet pointers). Cast to a number only to print it; a pointer "
        "that may be NULL must be compared before it is moved.",
    ),
    (
        "pointer-comparison",
        r"R\d+ pointer comparison prohibited",
        "a pointer is compared with something other than NULL or the packet's end",
        "Compare numbers, or packet pointers with data_end; everything else needs CAP_PERFMON.",
    ),
    (
        "partial-pointer",
        r"R\d+ partial copy of pointer|attempt to corrupt spilled pointer on stack|invalid size of register (?:fill"
        r"|spill)"
        r"|corrupted spill memory",
        "a part of a pointer is copied or overwritten",
        "Copy pointers as a whole: keep them in variables of 64 bits, and do not overlay them in a union.",
    ),
    (
        "read-only",
        r"(?:R\d+ )?cannot write into (?P<what>.*)|write into map forbidden, .*|write to change key .*"
        r"|read from map forbidden, .*|only read is supported|R\d+ invalid map_value access.*write.*",
        "this memory may not be accessed that way: it is read-only here (or write-only)",
        "Write to memory of your own and copy; constants (.rodata) and maps with BPF_F_RDONLY_PROG are not for the "
        "program to change, and packets only for the types that may.",
    ),
    (
        "frame-pointer",
        r"frame pointer is read only",
        "R10 points to the stack and cannot be changed",
        "Copy it first: `r2 = r10; r2 += -8`.",
    ),
    (
        "atomic",
        r"BPF_(?:XADD|ATOMIC|ST) stores into R\d+ .* is not allowed",
        "this memory cannot be changed with this kind of store",
        "Do atomic operations on values of maps or on the stack only.",
    ),
    (
        "return-value",
        r"(?:At|In) .*?the register R0 (?P<what>.*)|R0 not a scalar value.*",
        "the program returns a value that its kind does not allow: {what}",
        "Return one of the values that this attach point takes: mostly 0 or 1 (0 denies, 1 allows), for LSM 0 or a "
        "negative errno; clip a variable before the return.",
    ),
    # Instructions
    (
        "division",
        r"div by zero",
        "an instruction divides by the constant 0",
        "Divide by something else. (By a variable that is 0 is allowed: it gives 0.)",
    ),
    (
        "shift",
        r"invalid shift (?P<count>-?\d+)",
        "a number is shifted by {count}, and it has not so many bits",
        "Shift by 0 to 63 (0 to 31 for 32-bit numbers).",
    ),
    (
        "bad-instruction",
        r"unknown opcode (?P<opcode>[0-9a-f]+)|(?:BPF_\S+|\S+) uses reserved fields|invalid BPF_LD_IMM insn"
        r"|unrecognized bpf_ld_imm64 insn|unknown insn class .*|BPF_\S+ invalid .*|R\d+ is invalid"
        r"|invalid atomic operand size",
        "an instruction is malformed, or newer than this kernel",
        "Compile for an older instruction set (`-mcpu=v1`, `-mcpu=v2`, `-mcpu=v3`), or set the unused fields of "
        "hand-written instructions to 0.",
    ),
    # What the loader left in the program
    (
        "co-re",
        r"failed to resolve CO-RE relocation <\w+> (?:\[\d+\] )?(?P<what>.*?)(?: \(.*)?",
        "this kernel has no {what}, and the program gets to where it is used",
        "Ask first: `if (bpf_core_field_exists(p->field))` (or bpf_core_type_exists(), bpf_core_enum_value_exists()), "
        "and "
        "use it only there. `pybpf check x.bpf.o` lists all that is missing.",
    ),
    (
        "kfunc-missing",
        r"kfunc '(?P<name>[^']+)' is referenced but wasn't resolved",
        "this kernel has no kernel function {name}",
        "Declare it `__weak` and call it only where bpf_ksym_exists({name}), or run on a kernel that has it.",
    ),
    (
        "map-missing",
        r"BPF map '(?P<name>[^']+)' is referenced but wasn't created",
        "map {name} is used, but it was left out of this load",
        "Leave `spec.maps[{name!r}].autocreate` true, or keep the program from getting to its uses.",
    ),
)


_ECHO = re.compile(
    r"R\d+ (?:offset|min value) is outside of the .*|BPF_EXIT instruction .*would lead to reference leak"
)
"""Complaints that only say again, with less, what stands before them."""


class Advice:
    """One kind of rejection.

    Attributes:
        key: its name in this table: ``null-pointer``.
        meaning: what is wrong, in one sentence without a full stop.
        mend: what to do.
    """

    __slots__ = ("key", "meaning", "mend")

    def __init__(self, key: str, meaning: str, mend: str) -> None:
        self.key = key
        self.meaning = meaning
        self.mend = mend

    def __repr__(self) -> str:
        return f"<Advice {self.key}: {self.meaning}>"


_compiled: list[tuple[str, Pattern[str], str, str]] = []


def keys() -> list[str]:
    """The names of all kinds of rejection that are known."""
    return [key for key, _, _, _ in _ROWS]


def advise(reason: str) -> Advice | None:
    """What a rejection means; None when it is of no kind known here.

    Args:
        reason: the verifier's own sentence, the last telling line of its log.
    """
    if not _compiled:
        _compiled.extend((key, re.compile(pattern), meaning, mend) for key, pattern, meaning, mend in _ROWS)
    for key, pattern, meaning, mend in _compiled:
        found = pattern.fullmatch(reason)
        if found is not None:
            groups = {name: text.strip() for name, text in found.groupdict().items() if text}
            groups.setdefault("register", "a register")
            return Advice(key, _fill(meaning, groups), _fill(mend, groups))
    return None


def choose(complaints: Sequence[str]) -> tuple[str, Advice | None]:
    """The complaint that tells most, and what it means: the last one of a kind known here that is no echo.

    Args:
        complaints: lines of a log; may be empty.
    """
    telling = [complaint for complaint in complaints if not _ECHO.match(complaint)]
    for complaint in (*reversed(telling), *complaints):
        advice = advise(complaint)
        if advice is not None:
            return complaint, advice
    return (complaints[-1] if complaints else ""), None


def _fill(text: str, groups: dict[str, str]) -> str:
    """Put groups into a text; one that did not take part is left out as ``?``."""
    return re.sub(
        r"\{(\w+)(!r)?\}", lambda name: repr(groups.get(name[1], "?")) if name[2] else groups.get(name[1], "?"), text
    ).replace("{{}}", "{}")
