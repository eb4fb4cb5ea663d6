/*
 * What a test program knows to be true about itself, as JSON lines on stdout.
 *
 * Each line is one write(2), so lines of several threads and processes never mix.
 * Times are CLOCK_BOOTTIME in ns, the clock that the kernel side stamps calls with.
 * Every program, and every child that calls watchdog(), ends itself after WATCHDOG_S seconds at most.
 */
#ifndef FACTS_H
#define FACTS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/*
 * Calls that younger architectures have no numbers of their own for, as the C library makes them there: number and
 * arguments. The tests know what they are called then (conftest.py: own_name).
 */
#ifdef SYS_fork
#define FORK SYS_fork, 0
#define NR_FORK SYS_fork
#define NR_VFORK SYS_vfork
#else
#define FORK SYS_clone, SIGCHLD
#define NR_FORK SYS_clone
#define NR_VFORK SYS_clone
#endif
#ifdef SYS_pause
#define PAUSE SYS_pause, 0
#define NR_PAUSE SYS_pause
#else
#define PAUSE SYS_ppoll, 0, 0, 0, 0
#define NR_PAUSE SYS_ppoll
#endif
#ifdef SYS_poll
#define POLL_LONG(wanted) SYS_poll, (long)(wanted), 1, 1000000
#define NR_POLL SYS_poll
#else
#define POLL_LONG(wanted) SYS_ppoll, (long)(wanted), 1, (long)&(struct timespec){1000, 0}, 0
#define NR_POLL SYS_ppoll
#endif

#ifndef WATCHDOG_S
#define WATCHDOG_S 30
#endif

static inline void watchdog(void)
{
	alarm(WATCHDOG_S);
}

__attribute__((constructor)) static inline void start_watchdog(void)
{
	watchdog();
}

static inline long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static inline pid_t own_tid(void)
{
	return syscall(SYS_gettid);
}

/* Print one line: the format gives the inside of a JSON object. */
__attribute__((format(printf, 1, 2))) static inline void fact(const char *format, ...)
{
	char line[1024];
	va_list values;
	int length = 1;

	line[0] = '{';
	va_start(values, format);
	length += vsnprintf(line + 1, sizeof(line) - 3, format, values);
	va_end(values);
	line[length++] = '}';
	line[length++] = '\n';
	if (write(1, line, length) != length)
		_exit(99);
}

/*
 * Report one finished call. @ret is what user space saw, −errno for a failure; @thread is the id
 * that the kernel side knows this thread by.
 */
static inline void report(const char *label, long nr, long ret, pid_t thread, long long before,
			  long long after)
{
	fact("\"call\": \"%s\", \"nr\": %ld, \"ret\": %ld, \"tid\": %d, \"before\": %lld, \"after\": %lld",
	     label, nr, ret, thread, before, after);
}

/* Report a call from which this thread does not come back (exit, execve, death by a signal). */
static inline void announce(const char *label, long nr)
{
	fact("\"call\": \"%s\", \"nr\": %ld, \"tid\": %d, \"before\": %lld", label, nr, own_tid(), now_ns());
}

/* Make the call, report it, return what user space saw (−errno for a failure). */
static inline long traced_call(const char *label, long nr, const long args[6])
{
	long long before = now_ns(), after;
	long ret = syscall(nr, args[0], args[1], args[2], args[3], args[4], args[5]);

	after = now_ns();
	if (ret == -1)
		ret = -errno;
	report(label, nr, ret, own_tid(), before, after);
	return ret;
}

/* CALL(label, nr, arguments): twice, so that FORK and the like are taken apart. */
#define CALL(...) CALL_EXPANDED(__VA_ARGS__)
#define CALL_EXPANDED(label, nr, ...) traced_call(label, nr, (const long[6]){__VA_ARGS__})

static inline void fail(const char *what)
{
	fact("\"failed\": \"%s\", \"errno\": %d", what, errno);
	_exit(99);
}

/* The kernel lacks what the test is about: it is skipped for this reason. */
static inline void lack(const char *what)
{
	fact("\"lacks\": \"%s\"", what);
	_exit(77);
}

static inline void nap(void)
{
	struct timespec millisecond = {0, 1000000};

	nanosleep(&millisecond, NULL);
}

static inline int read_task_file(pid_t pid, pid_t tid, const char *name, char *text, size_t size)
{
	char path[96];
	int file;
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", pid, tid, name);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return -1;
	length = read(file, text, size - 1);
	close(file);
	text[length > 0 ? length : 0] = 0;
	return 0;
}

/* The state of a thread as /proc/PID/stat shows it, a letter; 0: it cannot be read. */
static inline char task_state(pid_t pid, pid_t tid)
{
	char text[512], *close_bracket;

	if (read_task_file(pid, tid, "stat", text, sizeof(text)))
		return 0;
	close_bracket = strrchr(text, ')');
	return close_bracket ? close_bracket[2] : 0;
}

/* Wait until a thread is in this state. */
static inline void wait_state(pid_t pid, pid_t tid, char state)
{
	while (task_state(pid, tid) != state)
		nap();
}

/*
 * Wait until a thread sleeps in the call @nr; the caller's watchdog ends a wait that is in vain. Of one that was woken and waits for its
 * CPU to hear of it, /proc/PID/syscall still shows the call that it slept or was stopped in, but its state is "R".
 */
static inline void wait_blocked(pid_t pid, pid_t tid, long nr)
{
	char text[256], *end, state;

	for (;; nap()) {
		if (read_task_file(pid, tid, "syscall", text, sizeof(text)))
			continue;
		state = task_state(pid, tid);
		if (strtol(text, &end, 10) == nr && end != text && (state == 'S' || state == 'D'))
			return;
	}
}

/* In a handler: give the interrupted code this value as its call's result. */
static inline void set_result(void *context, long value)
{
	mcontext_t *machine = &((ucontext_t *)context)->uc_mcontext;

#if defined(__x86_64__)
	machine->gregs[REG_RAX] = value;
#elif defined(__i386__)
	machine->gregs[REG_EAX] = value;
#elif defined(__aarch64__)
	machine->regs[0] = value;
#endif
}

/* A handler that does nothing but be run. */
static inline void on_signal(int signal)
{
	(void)signal;
}

static inline void handle(int signal, int flags)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};

	if (sigaction(signal, &action, NULL))
		fail("sigaction");
}

/* Wait for a child and return its wait status. */
static inline int reap(pid_t child)
{
	int status;

	while (waitpid(child, &status, __WALL) < 0)
		if (errno != EINTR)
			fail("waitpid");
	return status;
}

#endif
