/* A failed and a successful call of each kind the status rules tell apart, and the last call of all. */
#include "facts.h"
#include <poll.h>
#include <sys/socket.h>

int main(void)
{
	struct timespec past = {0, 1000};
	int word = 0, pipes[2];
	char byte;

	if (pipe2(pipes, O_NONBLOCK))
		fail("pipe2");
	CALL("missing file", SYS_openat, AT_FDCWD, (long)"/nonexistent/file", O_RDONLY);
	CALL("bad descriptor", SYS_close, 9999);
	CALL("would block", SYS_read, pipes[0], (long)&byte, 1);
	CALL("timed out", SYS_futex, (long)&word, 0, 0, (long)&past);
	CALL("present file", SYS_openat, AT_FDCWD, (long)"/dev/null", O_RDONLY);
	CALL("six arguments", SYS_process_vm_readv, 1, 2, 3, 4, 5, 6);
	CALL("large value", SYS_mmap, 0, 4096, 3, 0x22, -1, 0);
	return 0;
}
