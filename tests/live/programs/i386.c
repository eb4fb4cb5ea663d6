/* i386: a static 32-bit program; with a PATH it executes that program at last. */
#include "facts.h"

int main(int argc, char **argv)
{
	char *const environment[] = {NULL};

	CALL("getppid", SYS_getppid, 0);
	CALL("missing file", SYS_openat, AT_FDCWD, (long)"/nonexistent/file", O_RDONLY);
	CALL("bad descriptor", SYS_close, 9999);
	CALL("no call", 9999, 0);
	CALL("minus one", -1, 0);
	CALL("high address", SYS_mmap2, 0, 4096, 3, 0x22, -1, 0);
	if (argc > 1) {
		announce("execve", SYS_execve);
		syscall(SYS_execve, argv[1], argv + 1, environment);
		fail("execve");
	}
	return 2;
}
