/* A poll and then a nanosleep, each interrupted by SIGSTOP and SIGCONT and gone on with by restart_syscall. */
#include "facts.h"

#ifndef SYS_poll
#error "there is no poll(2), and ppoll(2) is made again"
#endif
#include <poll.h>

static int pipes[2];

static void stop_and_continue(pid_t parent, long nr)
{
	wait_blocked(parent, parent, nr);
	kill(parent, SIGSTOP);
	wait_state(parent, parent, 'T');
	kill(parent, SIGCONT);
}

int main(void)
{
	struct pollfd wanted = {.fd = -1, .events = POLLIN};
	struct timespec sleep_time = {0, 300000000};
	pid_t parent = getpid(), child;

	if (pipe(pipes))
		fail("pipe");
	wanted.fd = pipes[0];
	child = fork();
	if (child == 0) {
		watchdog();
		stop_and_continue(parent, SYS_poll);
		wait_blocked(parent, parent, SYS_restart_syscall);
		if (write(pipes[1], "x", 1) != 1)
			fail("write");
		stop_and_continue(parent, SYS_nanosleep);
		_exit(0);
	}
	CALL("poll", SYS_poll, (long)&wanted, 1, 25000);
	CALL("nanosleep", SYS_nanosleep, (long)&sleep_time, 0);
	reap(child);
	return 0;
}
