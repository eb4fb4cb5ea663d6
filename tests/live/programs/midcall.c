/*
 * For attach: one thread waits in read(2) of stdin, the leader in pause(2) all the time, a third
 * ticks with getppid once a millisecond. A byte on stdin lets the reader make three getuid calls,
 * then it waits in read again; the end of stdin ends the program.
 */
#include "facts.h"

static void *tick(void *unused)
{
	fact("\"ticking\": %d", own_tid());
	for (;; nap())
		syscall(SYS_getppid);
	return unused;
}

static void *obey(void *unused)
{
	char byte;

	fact("\"reading\": %d, \"nr\": %d", own_tid(), SYS_read);
	while (syscall(SYS_read, 0, &byte, 1) == 1)
		for (int i = 0; i < 3; i++)
			CALL("after attach", SYS_getuid, 0);
	_exit(0);
	return unused;
}

int main(void)
{
	pthread_t threads[2];

	if (pthread_create(&threads[0], NULL, tick, NULL) || pthread_create(&threads[1], NULL, obey, NULL))
		fail("pthread_create");
	fact("\"pausing\": %d, \"pause\": %d", own_tid(), NR_PAUSE);
	syscall(PAUSE);
	return 1;
}
