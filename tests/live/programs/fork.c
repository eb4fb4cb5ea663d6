/* Children by fork(2), clone(2) and clone3(2); each makes one call and leaves with a status of its own. */
#include "facts.h"
#include <linux/sched.h>

static void finish(long child, const char *label, int status)
{
	if (child < 0)
		fail(label);
	if (child > 0) {
		fact("\"child\": \"%s\", \"pid\": %ld, \"status\": %d", label, child, WEXITSTATUS(reap(child)));
		return;
	}
	watchdog();
	CALL(label, SYS_getppid, 0);
	_exit(status);
}

int main(void)
{
	struct clone_args args = {.exit_signal = SIGCHLD};

	finish(CALL("fork", FORK), "child of fork", 11);
	finish(CALL("clone", SYS_clone, SIGCHLD), "child of clone", 12);
	finish(CALL("clone3", SYS_clone3, (long)&args, sizeof(args)), "child of clone3", 13);
	return 0;
}
