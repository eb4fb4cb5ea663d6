/*
 * Does what stdin says, a letter at a time; all the while a thread ticks with getppid once a millisecond.
 *   c  makes three getuid calls
 *   t  starts a thread that makes three getuid calls and waits
 *   f  forks: the child goes on reading (and does not tick), the parent waits for its end
 *   e  executes its next argument, with those behind it
 * The end of stdin ends it.
 */
#include "facts.h"

static void *tick(void *unused)
{
	syscall(SYS_getppid);
	fact("\"ticking\": %d", own_tid());
	for (;; nap())
		syscall(SYS_getppid);
	return unused;
}

static void call(void)
{
	for (int i = 0; i < 3; i++)
		CALL("obeyed", SYS_getuid, 0);
}

static void *call_and_wait(void *unused)
{
	call();
	for (;;)
		pause();
	return unused;
}

static void obey(char letter, char **argv)
{
	pthread_t thread;
	pid_t child;

	if (letter == 'c')
		call();
	if (letter == 't' && pthread_create(&thread, NULL, call_and_wait, NULL))
		fail("pthread_create");
	if (letter == 'e') {
		execv(argv[1], argv + 1);
		fail("execv");
	}
	if (letter == 'f') {
		child = fork();
		if (child < 0)
			fail("fork");
		if (child > 0) {
			reap(child);
			_exit(0);
		}
		watchdog();
		fact("\"born\": %d", getpid());
	}
}

int main(int argc, char **argv)
{
	pthread_t thread;
	char letter;

	fact("\"image\": \"%s\", \"pid\": %d", argv[0], getpid());
	if (pthread_create(&thread, NULL, tick, NULL))
		fail("pthread_create");
	while (read(0, &letter, 1) == 1)
		obey(letter, argv);
	return 0;
}
