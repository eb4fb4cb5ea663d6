/*
 * interrupted eintr|restart: read(2) of a pipe interrupted by a handler. With SA_RESTART the kernel
 * makes the call again, and it then gets its byte; without, user space sees EINTR.
 */
#include "facts.h"

/* A number that nothing else in the program's life has. */
#define DESCRIPTOR 97

static int pipes[2];
static volatile int handled;
static int is_restart;

static void count(int signal)
{
	(void)signal;
	handled++;
}

static void *interrupt(void *main_tid)
{
	pid_t tid = (long)main_tid;

	wait_blocked(getpid(), tid, SYS_read);
	syscall(SYS_tgkill, getpid(), tid, SIGUSR1);
	if (!is_restart)
		return NULL;
	while (!handled)
		nap();
	wait_blocked(getpid(), tid, SYS_read);
	if (write(pipes[1], "x", 1) != 1)
		fail("write");
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = count};
	pthread_t thread;
	char byte;

	is_restart = argc > 1 && !strcmp(argv[1], "restart");
	action.sa_flags = is_restart ? SA_RESTART : 0;
	if (pipe(pipes) || dup2(pipes[0], DESCRIPTOR) < 0 || sigaction(SIGUSR1, &action, NULL))
		fail("set-up");
	if (pthread_create(&thread, NULL, interrupt, (void *)(long)own_tid()))
		fail("pthread_create");
	fact("\"descriptor\": %d", DESCRIPTOR);
	CALL("read", SYS_read, DESCRIPTOR, (long)&byte, 1);
	pthread_join(thread, NULL);
	fact("\"handled\": %d", handled);
	return 0;
}
