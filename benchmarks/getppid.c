// SPDX-License-Identifier: Apache-2.0
// Measures what a system call costs: getppid, or another one, in chunks, each timed on its own.
//
//     getppid [-w] CPU CHUNKS CALLS PAUSE_US [getppid|read|openat|getsockname]
//
// Runs on one CPU. Prints for each chunk the nanoseconds a call took (the loop around it included). Sleeps PAUSE_US
// between chunks, so that a tracer can empty its buffers. With -w it waits for a line on stdin before the first chunk
// and for the end of stdin after the last one.
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define WARM_UP 100

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now); // answered by the vDSO: no system call
	return now.tv_sec * 1e9 + now.tv_nsec;
}

// What is called: a number and its first three arguments.
static long nr = SYS_getppid, args[3];

static int choose(const char *name)
{
	static struct sockaddr_in address = { .sin_family = AF_INET };
	static socklen_t length = sizeof(address);
	static char byte;

	if (!strcmp(name, "read")) { // of a file: what a descriptor is, has to be found out
		nr = SYS_read, args[0] = open("/dev/null", O_RDONLY), args[1] = (long)&byte, args[2] = 1;
	} else if (!strcmp(name, "openat")) { // of a path
		nr = SYS_openat, args[0] = AT_FDCWD, args[1] = (long)"/nonexistent/file", args[2] = O_RDONLY;
	} else if (!strcmp(name, "getsockname")) { // of a descriptor and an address
		nr = SYS_getsockname, args[0] = socket(AF_INET, SOCK_DGRAM, 0);
		bind(args[0], (struct sockaddr *)&address, sizeof(address));
		args[1] = (long)&address, args[2] = (long)&length;
	} else {
		return strcmp(name, "getppid");
	}
	return 0;
}

static void call(long count)
{
	for (long i = 0; i < count; i++)
		syscall(nr, args[0], args[1], args[2]);
}

static double chunk(long calls)
{
	call(WARM_UP);
	double start = now_ns();
	call(calls);
	return (now_ns() - start) / calls;
}

int main(int argc, char **argv)
{
	int waits = argc > 1 && !strcmp(argv[1], "-w");

	argv += waits;
	if (argc - waits < 5 || argc - waits > 6 || (argc - waits == 6 && choose(argv[5]))) {
		fprintf(stderr, "usage: getppid [-w] CPU CHUNKS CALLS PAUSE_US [CALL]\n");
		return 2;
	}
	long chunks = atol(argv[2]), calls = atol(argv[3]), pause_us = atol(argv[4]);
	double *ns = calloc(chunks, sizeof(*ns));
	cpu_set_t cpu;

	if (!ns)
		return 1;
	CPU_ZERO(&cpu);
	CPU_SET(atol(argv[1]), &cpu);
	if (sched_setaffinity(0, sizeof(cpu), &cpu))
		perror("sched_setaffinity"); // a CPU that we may not use: measure where we are
	if (waits && getchar() == EOF)
		return 1;
	for (long i = 0; i < chunks; i++) {
		ns[i] = chunk(calls);
		if (pause_us)
			usleep(pause_us);
	}
	for (long i = 0; i < chunks; i++)
		printf("%.1f\n", ns[i]);
	fflush(stdout);
	while (waits && getchar() != EOF)
		;
	return 0;
}
