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
	{"blocked pause", SYS_pause, 0},
	{"blocked nanosleep", SYS_nanosleep, 0},
	{"blocked futex", SYS_futex, 0},
	{"blocked poll", SYS_poll, 0},
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
	if (own->nr == SYS_read)
		syscall(SYS_read, silent_pipe[0], &byte, 1);
	if (own->nr == SYS_pause)
		syscall(SYS_pause);
	if (own->nr == SYS_nanosleep)
		syscall(SYS_nanosleep, &long_time, NULL);
	if (own->nr == SYS_futex)
		syscall(SYS_futex, &futex_word, 0, 0, NULL);
	if (own->nr == SYS_poll)
		syscall(SYS_poll, &wanted, 1, 1000000);
	fact("\"failed\": \"%s came back\"", own->label);
	return NULL;
}

/* Start all of them but the one of call @except. */
static inline void start_blockers(long except)
{
	pthread_t thread;

	if (pipe(silent_pipe))
		fail("pipe");
	for (unsigned int i = 0; i < BLOCKERS; i++)
		if (blockers[i].nr != except && pthread_create(&thread, NULL, block, &blockers[i]))
			fail("pthread_create");
}

/* Wait until each of them sleeps in its call. */
static inline void wait_for_blockers(long except)
{
	for (unsigned int i = 0; i < BLOCKERS; i++) {
		if (blockers[i].nr == except)
			continue;
		while (!__atomic_load_n(&blockers[i].tid, __ATOMIC_SEQ_CST))
			nap();
		wait_blocked(getpid(), blockers[i].tid, blockers[i].nr);
	}
}

#endif
