/*
 * A thread starts the next, which starts the next, once a millisecond for some seconds; each ticks with getppid.
 * A byte on stdin lets every thread make one getuid call and wait; the end of stdin ends the program.
 */
#include "facts.h"
#include <stdatomic.h>

#define THREADS 3000

static atomic_int started, called, is_told;

static void *live(void *unused)
{
	pthread_t next;

	nap();
	if (!is_told && started < THREADS) {
		started++;
		if (pthread_create(&next, NULL, live, NULL))
			fail("pthread_create");
	}
	while (!is_told) {
		syscall(SYS_getppid);
		usleep(100000);
	}
	syscall(SYS_getuid);
	fact("\"called\": %d", own_tid());
	called++;
	for (;;)
		pause();
	return unused;
}

int main(void)
{
	pthread_t first;
	char byte;

	started = 1;
	fact("\"pid\": %d", getpid());
	if (pthread_create(&first, NULL, live, NULL))
		fail("pthread_create");
	if (read(0, &byte, 1) != 1)
		return 1;
	is_told = 1;
	while (called < started)
		nap();
	fact("\"threads\": %d, \"may be\": %d", called, THREADS);
	return read(0, &byte, 1) != 0;
}
