/*
 * ptrace_calls change|skip|emulate: a tracer changes the number of its child's getppid to getpid;
 * or skips the call and invents a result; or emulates it with PTRACE_SYSEMU.
 */
#include "tracing.h"

#ifndef __x86_64__
#error "it looks into the registers of x86_64"
#endif

static void be_tampered_with(void)
{
	be_traced();
	syscall(SYS_getuid);
	CALL("tampered", SYS_getppid, 0);
	CALL("untouched", SYS_getppid, 0);
	_exit(3);
}

int main(int argc, char **argv)
{
	struct user_regs_struct registers;
	pid_t child = fork();

	if (child == 0)
		be_tampered_with();
	begin_tracing(child);
	run_to_enter(child, SYS_getuid);
	next_stop(child, PTRACE_SYSCALL);
	registers = next_stop(child, strcmp(argv[1], "emulate") ? PTRACE_SYSCALL : PTRACE_SYSEMU);
	if (registers.orig_rax != SYS_getppid)
		fail("another call came first");
	if (!strcmp(argv[1], "change"))
		registers.orig_rax = SYS_getpid;
	if (!strcmp(argv[1], "skip"))
		registers.orig_rax = -1;
	if (!strcmp(argv[1], "emulate"))
		registers.rax = 4242;
	set_registers(child, &registers);
	if (!strcmp(argv[1], "skip")) {
		registers = next_stop(child, PTRACE_SYSCALL);
		registers.rax = -77;
		set_registers(child, &registers);
	}
	return WEXITSTATUS(finish_tracing(child)) == 3 ? argc > 2 : 98;
}
