/* Externs: settings of the kernel, kernel symbols, kernel functions. */
#include "bpf_min.h"

enum libbpf_tristate { TRI_NO = 0, TRI_YES = 1, TRI_MODULE = 2 };

struct task_struct {
	int pid;
};

extern int LINUX_KERNEL_VERSION __kconfig;
extern bool CONFIG_BPF_SYSCALL __kconfig;
extern enum libbpf_tristate CONFIG_NETFILTER __kconfig __weak;
extern char CONFIG_LETTER __kconfig __weak;
extern char CONFIG_DEFAULT_HOSTNAME[20] __kconfig __weak;
extern __u64 CONFIG_WIDE __kconfig __weak;
extern __s16 CONFIG_NARROW __kconfig __weak;
extern unsigned long CONFIG_HZ __kconfig __weak;

extern const void bpf_prog_active __ksym __weak;
extern const int runqueues_missing __ksym __weak;
extern struct task_struct *bpf_task_from_pid(int) __ksym __weak;
extern void bpf_task_release(struct task_struct *task) __ksym __weak;

__u64 result;

SEC("raw_tp/sys_enter")
int use(void *context)
{
	struct task_struct *task;

	result = LINUX_KERNEL_VERSION + CONFIG_BPF_SYSCALL + CONFIG_NETFILTER + CONFIG_LETTER + CONFIG_WIDE;
	result += CONFIG_NARROW + CONFIG_HZ + CONFIG_DEFAULT_HOSTNAME[1];
	result += (__u64)&bpf_prog_active + (__u64)&runqueues_missing;
	if (bpf_task_from_pid) {
		task = bpf_task_from_pid(1);
		if (task)
			bpf_task_release(task);
	}
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
