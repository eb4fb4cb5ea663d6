/* The leader leaves by exit(2); a thread goes on and ends the process with exit_group. */
#include "facts.h"

static void *survive(void *unused)
{
	wait_state(getpid(), getpid(), 'Z');
	CALL("after the leader", SYS_getppid, 0);
	announce("exit_group", SYS_exit_group);
	syscall(SYS_exit_group, 9);
	return unused;
}

int main(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, survive, NULL))
		fail("pthread_create");
	announce("leader's exit", SYS_exit);
	syscall(SYS_exit, 5);
	return 0;
}
