/* Handlers that return to code whose rax is of various values; rt_sigreturn seems to return them. */
#include "facts.h"
#include <ucontext.h>

static void skip_instruction(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)info;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
}

int main(void)
{
	static const long values[] = {-4, -2, -38, -512, 0, 61, 110, 0x7fffffffffff};
	struct sigaction action = {.sa_sigaction = skip_instruction, .sa_flags = SA_SIGINFO};
	long long before;
	long value;

	if (sigaction(SIGILL, &action, NULL))
		fail("sigaction");
	for (unsigned int i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		value = values[i];
		before = now_ns();
		asm volatile("ud2" : "+a"(value));
		report("rt_sigreturn", SYS_rt_sigreturn, value, own_tid(), before, now_ns());
	}
	return 0;
}
