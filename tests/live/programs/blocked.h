/* Threads that block, each in another call, until something ends them. */
#ifndef BLOCKED_H
#define BLOCKED_H

#include "facts.h"
#include <poll.h>

struct blocker {
	const char *label;
	long nr;
	pid_t tid;
};

static int silent_pipe[2], futex_word;

static struct blocker blockers[] = {
	{"blocked read", SYS_read, 0},
	{"blocked pause", NR_PAUSE, 0},
	{"blocked nanosleep", SYS_nanosleep, 0},
	{"blocked futex", SYS_futex, 0},
	{"blocked poll", NR_POLL, 0},
};

#define BLOCKERS (sizeof(blockers) / sizeof(blockers[0]))

static inline void *block(void *argument)
{
	struct blocker *own = argument;
	struct timespec long_time = {1000, 0};
	struct pollfd wanted = {.fd = silent_pipe[0], .events = POLLIN};
	char byte;

	announce(own->label, own->nr);
	__atomic_store_n(&own->tid, own_tid(), __ATOMIC_SEQ_CST);
	if (!strcmp(own->label, "blocked read"))
		syscall(SYS_read, silent_pipe[0], &byte, 1);
	if (!strcmp(own->label, "blocked pause"))
		syscall(PAUSE);
	if (!strcmp(own->label, "blocked nanosleep"))
		syscall(SYS_nanosleep, &long_time, NULL);
	if (!strcmp(own->label, "blocked futex"))
		syscall(SYS_futex, &futex_word, 0, 0, NULL);
	if (!strcmp(own->label, "blocked poll"))
		syscall(POLL_LONG(&wanted));
	fact("\"failed\": \"%s came back\"", own->label);
	return NULL;
}

/* Start all of them but the one of label @except. */
static inline void start_blockers(const char *except)
{
	pthread_t thread;

	if (pipe(silent_pipe))
		fail("pipe");
	for (unsigned int i = 0; i < BLOCKERS; i++)
		if (strcmp(blockers[i].label, except) && pthread_create(&thread, NULL, block, &blockers[i]))
			fail("pthread_create");
}

/* Wait until each of them sleeps in its call. */
static inline void wait_for_blockers(const char *except)
{
	for (unsigned int i = 0; i < BLOCKERS; i++) {
		if (!strcmp(blockers[i].label, except))
			continue;
		while (!__atomic_load_n(&blockers[i].tid, __ATOMIC_SEQ_CST))
			nap();
		wait_blocked(getpid(), blockers[i].tid, blockers[i].nr);
	}
}

#endif
