/*
 * Three processes one after the other with the same pid, by clone3 with set_tid. The first is killed
 * in a blocked call, the second and the third make calls of their own and leave.
 */
#include "facts.h"
#include <linux/sched.h>

static int silent_pipe[2];

static void live(int generation)
{
	char label[32], byte;

	watchdog();
	if (generation == 0) {
		announce("blocked", SYS_read);
		syscall(SYS_read, silent_pipe[0], &byte, 1);
		_exit(90);
	}
	snprintf(label, sizeof(label), "generation %d", generation);
	CALL(label, generation == 1 ? SYS_getppid : SYS_getuid, 0);
	_exit(60 + generation);
}

int main(void)
{
	pid_t wanted = fork();
	struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (long)&wanted, .set_tid_size = 1};
	int status;
	long child;

	if (wanted == 0)
		_exit(59);
	reap(wanted);
	if (pipe(silent_pipe))
		fail("pipe");
	for (int generation = 0; generation < 3; generation++) {
		child = syscall(SYS_clone3, &args, sizeof(args));
		if (child == 0)
			live(generation);
		if (child != wanted)
			fail("clone3");
		if (generation == 0) {
			wait_blocked(child, child, SYS_read);
			kill(child, SIGKILL);
		}
		status = reap(child);
		fact("\"generation\": %d, \"pid\": %ld, \"signal\": %d, \"status\": %d", generation, child,
		     WIFSIGNALED(status) ? WTERMSIG(status) : 0, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	}
	return 0;
}
