"""What bcc does in scripts/bench-load: compile, load and attach ONE program, first event, exit."""

from bcc import BPF

TEXT = """
struct event { u64 time_ns; u32 pid; char comm[16]; };
BPF_RINGBUF_OUTPUT(events, 16);
RAW_TRACEPOINT_PROBE(sys_enter)
{
    struct event event = {};
    event.time_ns = bpf_ktime_get_ns();
    event.pid = bpf_get_current_pid_tgid() >> 32;
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
