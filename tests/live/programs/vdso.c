/* Clock readings that never enter the kernel, next to seven that do. */
#include "facts.h"

/* Whether there is the page at a fixed address that had these functions before the vdso: a choice of the kernel's. */
static int has_vsyscall_page(void)
{
	char line[512];
	int found = 0;
	FILE *maps = fopen("/proc/self/maps", "r");

	while (maps && fgets(line, sizeof(line), maps))
		found |= strstr(line, "[vsyscall]") != NULL;
	if (maps)
		fclose(maps);
	return found;
}

int main(void)
{
	time_t (*vsyscall_time)(time_t *) = (void *)0xffffffffff600400;
	int is_there = has_vsyscall_page();
	struct timespec now;
	time_t seconds;
#ifdef __x86_64__
	unsigned int cpu;
#endif

	CALL("first", SYS_getppid, 0);
	for (int i = 0; i < 1000; i++) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		clock_gettime(CLOCK_REALTIME, &now);
		time(&seconds);
#ifdef __x86_64__ /* elsewhere the kernel answers it */
		getcpu(&cpu, NULL);
#endif
	}
	if (is_there)
		vsyscall_time(&seconds);
	for (int i = 0; i < 7; i++)
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	CALL("last", SYS_getppid, 0);
	return 0;
}
