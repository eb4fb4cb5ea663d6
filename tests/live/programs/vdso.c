/* Clock readings that never enter the kernel, next to seven that do. */
#include "facts.h"

int main(void)
{
	time_t (*vsyscall_time)(time_t *) = (void *)0xffffffffff600400;
	struct timespec now;
	time_t seconds;
	unsigned int cpu;

	CALL("first", SYS_getppid, 0);
	for (int i = 0; i < 1000; i++) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		clock_gettime(CLOCK_REALTIME, &now);
		time(&seconds);
		getcpu(&cpu, NULL);
	}
	vsyscall_time(&seconds);
	for (int i = 0; i < 7; i++)
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	CALL("last", SYS_getppid, 0);
	return 0;
}
