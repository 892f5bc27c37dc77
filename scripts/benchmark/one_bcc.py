"""What bcc does in scripts/bench-load: compile, load and attach ONE program, first event, exit.

The program is the first of load50.bpf.c. The kernel's structs that it looks into come from a header, as bcc has it.
"""

from bcc import BPF

TEXT = """
#include <linux/sched.h>

struct event { u64 time_ns; u32 pid; u32 ppid; char comm[16]; };
BPF_RINGBUF_OUTPUT(events, 16);
RAW_TRACEPOINT_PROBE(sys_enter)
{
    struct task_struct *task = (struct task_struct *) bpf_get_current_task();
    struct event event = {};
    event.time_ns = bpf_ktime_get_ns();
    event.pid = task->tgid;
    event.ppid = task->real_parent->tgid;
    bpf_get_current_comm(event.comm, sizeof(event.comm));
    events.ringbuf_output(&event, sizeof(event), 0);
    return 0;
}
"""

seen = []
bpf = BPF(text=TEXT)
bpf["events"].open_ring_buffer(lambda context, data, size: seen.append(size))
while not seen:
    bpf.ring_buffer_poll(100)
