/* Handlers that return to code whose result register has various values; rt_sigreturn seems to return them. */
#include "facts.h"

/* Run an instruction that does not exist while the register of results holds @value; returns what it holds then. */
static long run_undefined_instruction(long value)
{
#if defined(__x86_64__)
	asm volatile("ud2" : "+a"(value));
	return value;
#elif defined(__aarch64__)
	register long result asm("x0") = value;

	asm volatile("udf #0" : "+r"(result));
	return result;
#endif
}

static void skip_undefined_instruction(void *context)
{
	mcontext_t *machine = &((ucontext_t *)context)->uc_mcontext;

#if defined(__x86_64__)
	machine->gregs[REG_RIP] += 2;
#elif defined(__aarch64__)
	machine->pc += 4;
#endif
}

static void skip_instruction(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)info;
	skip_undefined_instruction(context);
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
		value = run_undefined_instruction(value);
		report("rt_sigreturn", SYS_rt_sigreturn, value, own_tid(), before, now_ns());
	}
	return 0;
}
