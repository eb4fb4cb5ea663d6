/*
 * Threads or processes that live for a moment, many at a time: short_lives threads|processes COUNT.
 * Of the processes one in three executes a program, one in three is killed in a call, one in three ends by itself.
 */
#include "facts.h"

#define BATCH 50

static void *live(void *unused)
{
	syscall(SYS_getppid);
	return unused;
}

static void thread_batch(int count)
{
	pthread_t threads[BATCH];

	for (int i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, live, NULL))
			fail("pthread_create");
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

static void process_batch(int count)
{
	pid_t children[BATCH];

	for (int i = 0; i < count; i++) {
		children[i] = vfork();
		if (children[i] < 0)
			fail("fork");
		if (children[i] == 0) {
			if (i % 3 == 0)
				execl("/bin/true", "true", NULL);
			_exit(0);
		}
	}
	for (int i = 0; i < count; i++)
		reap(children[i]);
	for (int i = 0; i < count / 3; i++) {
		children[i] = fork();
		if (children[i] == 0)
			for (;;)
				pause();
	}
	for (int i = 0; i < count / 3; i++) {
		kill(children[i], SIGKILL);
		reap(children[i]);
	}
}

int main(int argc, char **argv)
{
	int is_threads = argc > 1 && !strcmp(argv[1], "threads");
	int count = argc > 2 ? atoi(argv[2]) : 1000;

	alarm(300);
	for (int done = 0; done < count; done += BATCH)
		is_threads ? thread_batch(BATCH) : process_batch(BATCH);
	fact("\"lives\": %d", count);
	return 0;
}
