/* Syscall user dispatch: getppid goes to a handler of the program's own, not to the kernel. */
#include "facts.h"
#include <sys/prctl.h>

static volatile char selector;

static void emulate(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)info;
	selector = 0;
	set_result(context, 4242);
}

int main(void)
{
	struct sigaction action = {.sa_sigaction = emulate, .sa_flags = SA_SIGINFO};
	long long before;
	long ret;

	if (sigaction(SIGSYS, &action, NULL))
		fail("sigaction");
	if (prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &selector))
		lack("syscall user dispatch");
	before = now_ns();
	selector = 1;
	ret = syscall(SYS_getppid);
	report("dispatched", SYS_getppid, ret, own_tid(), before, now_ns());
	CALL("not dispatched", SYS_getpid, 0);
	return 0;
}
