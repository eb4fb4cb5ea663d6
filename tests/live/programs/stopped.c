/*
 * stopped nanosleep|poll|futex|pause [STOPS]: a call that is interrupted by SIGSTOP and SIGCONT,
 * without any handler, and goes on: by restart_syscall, or (pause) by being made again.
 * The pause is ended by a handler, the poll and the futex by what they wait for.
 */
#include "facts.h"
#include <poll.h>
#include <sys/mman.h>

static int pipes[2];
static int *shared;

static const struct {
	const char *name;
	long nr;
	int restarts;
} cases[] = {
	{"nanosleep", SYS_nanosleep, 1},
#ifdef SYS_poll
	{"poll", SYS_poll, 1},
#endif
	{"futex", SYS_futex, 1},
	{"pause", NR_PAUSE, 0},
};

static void end_wait(pid_t parent, long nr)
{
	if (nr == NR_PAUSE)
		kill(parent, SIGUSR1);
	if (nr == NR_POLL && nr != NR_PAUSE && write(pipes[1], "x", 1) != 1)
		fail("write");
	if (nr == SYS_futex)
		while (syscall(SYS_futex, shared, 1, 1) != 1)
			nap();
}

static void stop_and_continue(pid_t parent, long nr, long nr_again, int stops)
{
	watchdog();
	wait_blocked(parent, parent, nr);
	for (int i = 0; i < stops; i++) {
		kill(parent, SIGSTOP);
		wait_state(parent, parent, 'T');
		kill(parent, SIGCONT);
		wait_blocked(parent, parent, nr_again);
	}
	end_wait(parent, nr);
	_exit(0);
}

static void make_call(long nr)
{
	struct timespec sleep_time = {0, 700000000}, long_time = {25, 0};

	if (nr == SYS_nanosleep)
		CALL("stopped", nr, (long)&sleep_time, 0);
#ifdef SYS_poll
	if (nr == SYS_poll)
		CALL("stopped", nr, (long)&(struct pollfd){.fd = pipes[0], .events = POLLIN}, 1, 25000);
#endif
	if (nr == SYS_futex)
		CALL("stopped", nr, (long)shared, 0, 0, (long)&long_time);
	if (nr == NR_PAUSE)
		CALL("stopped", PAUSE);
}

int main(int argc, char **argv)
{
	pid_t parent = getpid(), child;
	int chosen = 0;

	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (pipe(pipes) || shared == MAP_FAILED)
		fail("set-up");
	while (strcmp(cases[chosen].name, argv[1]) != 0)
		chosen++;
	handle(SIGUSR1, 0);
	child = fork();
	if (child == 0)
		stop_and_continue(parent, cases[chosen].nr,
				  cases[chosen].restarts ? SYS_restart_syscall : cases[chosen].nr,
				  argc > 2 ? atoi(argv[2]) : 1);
	make_call(cases[chosen].nr);
	reap(child);
	return 0;
}
