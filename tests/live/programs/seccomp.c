/*
 * seccomp errno|zero|fork|newborn|trace|trap|kill_thread|kill_process: getppid answered by a filter
 * instead of the kernel, in a child so that its death can be told. "fork": a fork answered with 0,
 * as a new child sees it; "newborn": the filtered call is the first of a new child.
 */
#include "filters.h"

static const struct {
	const char *name;
	unsigned int answer;
	long nr;
} cases[] = {
	{"errno", SECCOMP_RET_ERRNO | EXDEV, SYS_getppid},
	{"zero", SECCOMP_RET_ERRNO | 0, SYS_getppid},
	{"fork", SECCOMP_RET_ERRNO | 0, NR_FORK},
	{"newborn", SECCOMP_RET_ERRNO | EXDEV, SYS_getppid},
	{"trace", SECCOMP_RET_TRACE, SYS_getppid},
	{"trap", SECCOMP_RET_TRAP, SYS_getppid},
	{"kill_thread", SECCOMP_RET_KILL_THREAD, SYS_getppid},
	{"kill_process", SECCOMP_RET_KILL_PROCESS, SYS_getppid},
};

static void answer_trap(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)info;
	set_result(context, 77);
}

static void be_born(void)
{
	pid_t child = syscall(FORK);

	if (child == 0) {
		CALL("newborn's first", SYS_getppid, 0);
		_exit(0);
	}
	reap(child);
}

static void *call_filtered(void *name)
{
	int chosen = 0;

	while (strcmp(cases[chosen].name, name) != 0)
		chosen++;
	install_filter(cases[chosen].nr, cases[chosen].answer, 0);
	if (!strcmp(name, "newborn"))
		be_born();
	if (!strncmp(name, "kill", 4))
		announce("filtered", SYS_getppid);
	/* With an argument that is no result: on aarch64 a trapped call returns it. */
	CALL("filtered", cases[chosen].nr, 1);
	CALL("allowed", SYS_getpid, 0);
	return NULL;
}

static int run_child(char *name)
{
	struct sigaction action = {.sa_sigaction = answer_trap, .sa_flags = SA_SIGINFO};
	pthread_t thread;

	watchdog();
	sigaction(SIGSYS, &action, NULL);
	CALL("before the filter", SYS_getppid, 0);
	if (pthread_create(&thread, NULL, call_filtered, name))
		fail("pthread_create");
	pthread_join(thread, NULL);
	CALL("beside the filter", SYS_getppid, 0);
	return 4;
}

int main(int argc, char **argv)
{
	pid_t child = fork();
	int status;

	if (child == 0)
		_exit(run_child(argv[1]));
	status = reap(child);
	fact("\"child\": %d, \"signal\": %d, \"status\": %d", child, WIFSIGNALED(status) ? WTERMSIG(status) : 0,
	     WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	return argc > 2;
}
