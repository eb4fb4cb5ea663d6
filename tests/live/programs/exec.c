/* exec: executes itself once more, by execve and then by execveat, from the leader. */
#include "facts.h"

int main(int argc, char **argv)
{
	char *const again[] = {"again", "second", NULL};
	char *const once_more[] = {"once more", "second", "third", NULL};
	char *const environment[] = {"WHO=second", NULL};

	fact("\"image\": %d, \"pid\": %d, \"now\": %lld", argc, getpid(), now_ns());
	CALL("own image", SYS_getppid, 0);
	if (argc == 1) {
		announce("execve", SYS_execve);
		syscall(SYS_execve, "/proc/self/exe", again, environment);
		fail("execve");
	}
	if (argc == 2) {
		announce("execveat", SYS_execveat);
		syscall(SYS_execveat, AT_FDCWD, "/proc/self/exe", once_more, environment, 0);
		fail("execveat");
	}
	return 6;
}
