/* A child with threads blocked in various calls is killed by SIGKILL. */
#include "blocked.h"

int main(void)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		watchdog();
		start_blockers("blocked pause");
		wait_for_blockers("blocked pause");
		announce("leader's pause", NR_PAUSE);
		syscall(PAUSE);
		_exit(1);
	}
	wait_blocked(child, child, NR_PAUSE);
	kill(child, SIGKILL);
	status = reap(child);
	fact("\"killed\": %d, \"signal\": %d", child, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	return 0;
}
