/* A child with threads blocked in various calls is killed by SIGKILL. */
#include "blocked.h"

int main(void)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		watchdog();
		start_blockers(SYS_pause);
		wait_for_blockers(SYS_pause);
		announce("leader's pause", SYS_pause);
		syscall(SYS_pause);
		_exit(1);
	}
	wait_blocked(child, child, SYS_pause);
	kill(child, SIGKILL);
	status = reap(child);
	fact("\"killed\": %d, \"signal\": %d", child, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	return 0;
}
