/* exec_path PATH [ARGS...]: executes another program. */
#include "facts.h"

int main(int argc, char **argv)
{
	char *const environment[] = {NULL};

	CALL("first image", SYS_getppid, 0);
	announce("execve", SYS_execve);
	syscall(SYS_execve, argv[1], argv + 1, environment);
	fail("execve");
	return argc;
}
