/* What the programs share in which a parent traces its child by ptrace(2). */
#ifndef TRACING_H
#define TRACING_H

#include "facts.h"
#include <sys/ptrace.h>
#include <sys/user.h>

/* In the child: ask to be traced and stop until the parent is ready. */
static inline void be_traced(void)
{
	watchdog();
	if (ptrace(PTRACE_TRACEME, 0, 0, 0))
		fail("traceme");
	raise(SIGSTOP);
}

/* In the parent: wait for that stop. */
static inline void begin_tracing(pid_t child)
{
	reap(child);
	if (ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL))
		fail("setoptions");
}

#ifdef __x86_64__ /* what looks into registers is written for it */
/* Let the child go on to its next stop at a call's enter or exit; registers as they are there. */
static inline struct user_regs_struct next_stop(pid_t child, int request)
{
	struct user_regs_struct registers;
	int status, signal = 0;

	do {
		if (ptrace(request, child, 0, signal))
			fail("ptrace");
		status = reap(child);
		if (!WIFSTOPPED(status))
			fail("child ended");
		signal = WSTOPSIG(status);
	} while (signal != (SIGTRAP | 0x80));
	if (ptrace(PTRACE_GETREGS, child, 0, &registers))
		fail("getregs");
	return registers;
}

/* Let the child go on until it enters the call @nr. */
static inline struct user_regs_struct run_to_enter(pid_t child, long nr)
{
	struct user_regs_struct registers;

	do
		registers = next_stop(child, PTRACE_SYSCALL);
	while ((long)registers.orig_rax != nr || (long)registers.rax != -ENOSYS);
	return registers;
}

static inline void set_registers(pid_t child, struct user_regs_struct *registers)
{
	if (ptrace(PTRACE_SETREGS, child, 0, registers))
		fail("setregs");
}
#endif

static inline int finish_tracing(pid_t child)
{
	ptrace(PTRACE_CONT, child, 0, 0);
	return reap(child);
}

#endif
