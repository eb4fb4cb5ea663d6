/*
 * The calls that the kernel's own uprobe trampolines make, made by hand: the kernel answers with
 * SIGILL, or (newer: uprobe) with an error.
 */
#include "facts.h"

#ifndef __x86_64__
#error "the calls uprobe and uretprobe are those of x86_64"
#endif
#include <setjmp.h>

static sigjmp_buf after_signal;

static void leave(int signal)
{
	siglongjmp(after_signal, signal);
}

int main(void)
{
	struct sigaction action = {.sa_handler = leave};

	if (sigaction(SIGILL, &action, NULL))
		fail("sigaction");
	for (volatile long nr = 335; nr < 337; nr++) {
		announce("by hand", nr);
		if (!sigsetjmp(after_signal, 1))
			CALL("answered", nr, 0);
		else
			fact("\"illegal\": %ld, \"now\": %lld", nr, now_ns());
	}
	return 0;
}
