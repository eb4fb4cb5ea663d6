/*
 * A child in a new pid namespace, and its child there. Each names itself twice: as its own
 * namespace knows it, and as /proc, which belongs to the outer one, does.
 */
#include "facts.h"

static void introduce(const char *label)
{
	char text[64] = "";
	long long before = now_ns(), after;
	long inner = syscall(SYS_getpid);

	after = now_ns();
	if (readlink("/proc/self", text, sizeof(text) - 1) < 0)
		fail("readlink");
	report(label, SYS_getpid, inner, atoi(text), before, after);
}

static long clone_and_report(const char *label, long flags)
{
	char text[64] = "";
	long long before = now_ns(), after;
	long child = syscall(SYS_clone, flags, 0, 0, 0, 0);

	after = now_ns();
	if (child == 0) {
		watchdog();
		return 0;
	}
	if (child < 0 || readlink("/proc/self", text, sizeof(text) - 1) < 0)
		fail(label);
	report(label, SYS_clone, child, atoi(text), before, after);
	return child;
}

int main(void)
{
	long child, grandchild;

	introduce("outer");
	child = clone_and_report("clone with a new namespace", CLONE_NEWPID | SIGCHLD);
	if (child == 0) {
		introduce("first");
		grandchild = clone_and_report("clone inside", SIGCHLD);
		if (grandchild == 0) {
			introduce("second");
			_exit(22);
		}
		reap(grandchild);
		_exit(21);
	}
	return WEXITSTATUS(reap(child)) == 21 ? 0 : 1;
}
