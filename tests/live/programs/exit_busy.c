/* Threads that make one call after the other until the leader's exit_group ends them, wherever they are. */
#include "facts.h"

static void *call(void *unused)
{
	for (;;)
		syscall(SYS_getppid);
	return unused;
}

int main(void)
{
	pthread_t thread;

	for (int i = 0; i < 6; i++)
		if (pthread_create(&thread, NULL, call, NULL))
			fail("pthread_create");
	usleep(20000);
	syscall(SYS_exit_group, 3);
	return 0;
}
