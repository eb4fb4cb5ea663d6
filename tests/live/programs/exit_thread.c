/* Threads that leave by exit(2) one after the other, the leader last. */
#include "facts.h"

static void *leave(void *status)
{
	announce("thread's exit", SYS_exit);
	syscall(SYS_exit, (long)status);
	return NULL;
}

int main(void)
{
	pthread_t thread;

	for (long status = 41; status < 44; status++) {
		if (pthread_create(&thread, NULL, leave, (void *)status))
			fail("pthread_create");
		pthread_join(thread, NULL);
	}
	announce("leader's exit", SYS_exit);
	syscall(SYS_exit, 7);
	return 0;
}
