/* fork_storm COUNT: forks so many children while another process sends one signal after the other. */
#include "facts.h"

static void storm(pid_t target)
{
	watchdog();
	while (!kill(target, SIGUSR1))
		sched_yield();
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t parent = getpid(), sender, child;
	int count = atoi(argv[1]);

	handle(SIGUSR1, SA_RESTART);
	sender = fork();
	if (sender == 0)
		storm(parent);
	for (int i = 0; i < count; i++) {
		child = syscall(FORK);
		if (child == 0)
			_exit(0);
		if (child < 0)
			fail("fork");
		fact("\"forked\": %d", child);
		reap(child);
	}
	kill(sender, SIGKILL);
	reap(sender);
	return argc > 2;
}
