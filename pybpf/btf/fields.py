"""The structs of <linux/bpf.h> that values of maps may contain and the kernel takes charge of, as C declarations.

The kernel knows them by their names, and refuses any other size. Whoever declares one is not contradicted.

Source: include/uapi/linux/bpf.h; ``struct bpf_res_spin_lock`` is in include/asm-generic/rqspinlock.h.
"""

from __future__ import annotations

KERNEL_FIELDS = {
    "bpf_spin_lock": "struct bpf_spin_lock { __u32 val; }",  # Linux 5.1
    "bpf_timer": "struct bpf_timer { __u64 __opaque[2]; } __attribute__((aligned(8)))",  # Linux 5.15
    "bpf_refcount": "struct bpf_refcount { __u32 __opaque[1]; } __attribute__((aligned(4)))",  # Linux 6.4
    "bpf_wq": "struct bpf_wq { __u64 __opaque[2]; } __attribute__((aligned(8)))",  # Linux 6.10
    "bpf_res_spin_lock": "struct bpf_res_spin_lock { __u32 val; }",  # Linux 6.15
    "bpf_task_work": "struct bpf_task_work { __u64 __opaque; } __attribute__((aligned(8)))",  # Linux 6.18
}
"""Name -> declaration."""
