/* vfork whose child sleeps, then leaves; and vfork whose child executes another program. */
#include "facts.h"

int main(void)
{
	struct timespec pause_time = {0, 30000000};
	char *const other[] = {"/bin/true", NULL};
	char *const none[] = {NULL};
	long long before = now_ns(), after;
	pid_t child = vfork();

	if (child == 0) {
		syscall(SYS_nanosleep, &pause_time, NULL);
		_exit(3);
	}
	after = now_ns();
	report("vfork", NR_VFORK, child, own_tid(), before, after);
	fact("\"child\": \"child of vfork\", \"pid\": %d, \"status\": %d", child, WEXITSTATUS(reap(child)));

	before = now_ns();
	child = vfork();
	if (child == 0) {
		execve(other[0], other, none);
		_exit(4);
	}
	after = now_ns();
	report("vfork and exec", NR_VFORK, child, own_tid(), before, after);
	fact("\"child\": \"exec after vfork\", \"pid\": %d, \"status\": %d", child, WEXITSTATUS(reap(child)));
	return 0;
}
