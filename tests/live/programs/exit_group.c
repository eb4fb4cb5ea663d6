/* exit_group leader|thread: ends a process whose other threads are blocked in various calls. */
#include "blocked.h"

static void *end_all(void *unused)
{
	wait_for_blockers("");
	announce("exit_group", SYS_exit_group);
	syscall(SYS_exit_group, 5);
	return unused;
}

static void *end_all_but_leader(void *unused)
{
	wait_blocked(getpid(), getpid(), NR_PAUSE);
	return end_all(unused);
}

int main(int argc, char **argv)
{
	pthread_t thread;

	start_blockers("");
	if (argc < 2 || strcmp(argv[1], "thread") != 0)
		end_all(NULL);
	if (pthread_create(&thread, NULL, end_all_but_leader, NULL))
		fail("pthread_create");
	announce("leader's pause", NR_PAUSE);
	syscall(PAUSE);
	return 1;
}
