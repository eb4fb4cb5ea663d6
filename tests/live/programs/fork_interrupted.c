/*
 * fork with a signal pending: the kernel gives the fork up (ERESTARTNOINTR), runs the handler and
 * makes the fork again. A tracer stops the forking process at the call's enter and sends the signal
 * there, so that it is certain to be pending.
 */
#include "tracing.h"

#ifndef __x86_64__
#error "it looks into the registers of x86_64"
#endif

static void fork_once(void)
{
	long child;

	handle(SIGUSR1, 0);
	be_traced();
	child = CALL("fork", SYS_fork, 0);
	if (child == 0) {
		watchdog();
		_exit(5);
	}
	_exit(WEXITSTATUS(reap(child)));
}

int main(void)
{
	pid_t child = fork();
	int status;

	if (child == 0)
		fork_once();
	begin_tracing(child);
	run_to_enter(child, SYS_fork);
	kill(child, SIGUSR1);
	ptrace(PTRACE_CONT, child, 0, 0);
	status = reap(child);
	while (WIFSTOPPED(status)) {
		ptrace(PTRACE_CONT, child, 0, WSTOPSIG(status));
		status = reap(child);
	}
	return WEXITSTATUS(status);
}
