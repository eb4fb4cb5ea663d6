/* A nanosleep that a tracer interrupts with PTRACE_INTERRUPT, without any signal. */
#include "tracing.h"

int main(void)
{
	struct timespec sleep_time = {0, 400000000};
	pid_t child = fork();

	if (child == 0) {
		watchdog();
		CALL("interrupted", SYS_nanosleep, (long)&sleep_time, 0);
		_exit(3);
	}
	wait_blocked(child, child, SYS_nanosleep);
	if (ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_EXITKILL) || ptrace(PTRACE_INTERRUPT, child, 0, 0))
		fail("seize");
	reap(child);
	return WEXITSTATUS(finish_tracing(child)) == 3 ? 0 : 98;
}
