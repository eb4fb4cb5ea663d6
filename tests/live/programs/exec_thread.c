/* execve by a thread that is not the leader, while the others are blocked. */
#include "blocked.h"

static void *replace(void *unused)
{
	char *const again[] = {"again", "second", NULL};
	char *const environment[] = {NULL};

	wait_for_blockers("");
	wait_blocked(getpid(), getpid(), NR_PAUSE);
	announce("execve", SYS_execve);
	syscall(SYS_execve, "/proc/self/exe", again, environment);
	fail("execve");
	return unused;
}

int main(int argc, char **argv)
{
	pthread_t thread;

	if (argc > 1) {
		fact("\"image\": 2, \"pid\": %d, \"now\": %lld", getpid(), now_ns());
		CALL("second image", SYS_getppid, 0);
		return 8;
	}
	start_blockers("");
	if (pthread_create(&thread, NULL, replace, NULL))
		fail("pthread_create");
	announce("leader's pause", NR_PAUSE);
	syscall(PAUSE);
	return 1;
}
