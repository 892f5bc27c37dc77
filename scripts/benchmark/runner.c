/* Runs a command once and prints its wall time in microseconds, its peak memory in KiB and its exit status.
 *
 * The kernel counts the memory of a process before exec(2) too, so a measuring process must itself be small.
 */
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **arguments)
{
	struct timespec start, end;
	struct rusage usage;
	int status;

	clock_gettime(CLOCK_MONOTONIC, &start);
	pid_t child = vfork();
	if (child == 0) {
		execvp(arguments[1], arguments + 1);
		_exit(127);
	}
	if (child < 0 || wait4(child, &status, 0, &usage) != child)
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &end);
	long us = (end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000;
	fprintf(stderr, "\n%ld %ld %d\n", us, usage.ru_maxrss, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	return 0;
}
