// SPDX-License-Identifier: Apache-2.0
// Many processes and threads that make calls at a chosen rate.
//
//     storm PROCESSES THREADS KINDS RATE SECONDS
//
// Starts PROCESSES processes of THREADS threads each, prints "ready" and waits for a line on stdin. Then all threads together make
// RATE calls a second (0: as many as they can) of KINDS different kinds for SECONDS, in short bursts with sleeps between them.
// Prints how many calls that were, sleeps included, and waits for another line; then all processes but the first end, and it
// prints "ended" and waits for the end of stdin.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BURSTS_A_SECOND 10
#define BURST_MAX 1000
#define STACK_BYTES (64 * 1024)
#define LOOK_EVERY_NS 50000000L

// All fail at once or do next to nothing when their first argument is no descriptor.
static const long kinds[] = {
	SYS_getppid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_gettid, SYS_getpid, SYS_read, SYS_write, SYS_close,
	SYS_lseek, SYS_pread64, SYS_pwrite64, SYS_readv, SYS_writev, SYS_dup, SYS_fcntl, SYS_flock, SYS_fsync, SYS_fdatasync,
	SYS_ftruncate, SYS_fchdir, SYS_fchmod, SYS_fchown, SYS_fstat, SYS_fstatfs, SYS_getdents64, SYS_ioctl, SYS_fallocate,
	SYS_fadvise64, SYS_readahead, SYS_sync_file_range, SYS_preadv, SYS_pwritev, SYS_syncfs, SYS_listen, SYS_accept4,
	SYS_shutdown, SYS_getsockname, SYS_getpeername, SYS_bind, SYS_connect, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg,
	SYS_setsockopt, SYS_getsockopt, SYS_inotify_add_watch, SYS_inotify_rm_watch, SYS_timerfd_gettime, SYS_timerfd_settime,
	SYS_epoll_ctl, SYS_signalfd4, SYS_fgetxattr, SYS_flistxattr, SYS_fsetxattr, SYS_fremovexattr, SYS_splice, SYS_tee,
	SYS_vmsplice, SYS_sendfile, SYS_dup3, SYS_setns,
};
#define KINDS_MAX ((long)(sizeof(kinds) / sizeof(kinds[0])))

static long kind_count, burst, period_ns, run_ns;
static int gate[2], way_out[2]; // nobody gets through before the end is closed that is written to
static struct {
	long made; // calls
	long finished; // threads that have made theirs
} *total; // shared by all processes

static long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now); // answered by the vDSO: no system call
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void *work(void *number)
{
	long calls = 0, end, next, kind = (long)number;
	char byte;

	if (read(gate[0], &byte, 1))
		return NULL;
	next = now_ns();
	end = next + run_ns;
	next += period_ns ? (long)number * 7919 % 1000 * (period_ns / 1000) : 0; // not all at once
	while (next < end) {
		if (period_ns) {
			struct timespec until = { next / 1000000000L, next % 1000000000L };

			clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
			calls++;
		}
		for (long i = 0; i < burst; i++)
			syscall(kinds[kind++ % kind_count], -1, 0, 0, 0);
		calls += burst;
		next = period_ns ? next + period_ns : now_ns();
	}
	__atomic_add_fetch(&total->made, calls, __ATOMIC_RELAXED);
	__atomic_add_fetch(&total->finished, 1, __ATOMIC_RELEASE);
	return NULL;
}

static int run_threads(long process, long threads)
{
	pthread_t *ids = calloc(threads, sizeof(*ids));
	pthread_attr_t small;
	char byte;

	if (!ids)
		return 1;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, STACK_BYTES);
	for (long i = 1; i < threads; i++)
		if (pthread_create(&ids[i], &small, work, (void *)(process * threads + i)))
			return 1;
	work((void *)(process * threads));
	for (long i = 1; i < threads; i++)
		pthread_join(ids[i], NULL);
	return read(way_out[0], &byte, 1) != 0;
}

static int start(long processes, long threads)
{
	for (long i = 0; i < processes; i++) {
		pid_t child = fork();

		if (child < 0) {
			perror("fork");
			return 1;
		}
		if (child)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(gate[1]);
		close(way_out[1]);
		_exit(run_threads(i, threads));
	}
	return 0;
}

static int read_line(void)
{
	int byte = getchar();

	while (byte != '\n' && byte != EOF)
		byte = getchar();
	return byte == '\n';
}

int main(int argc, char **argv)
{
	if (argc != 6) {
		fprintf(stderr, "usage: storm PROCESSES THREADS KINDS RATE SECONDS\n");
		return 2;
	}
	long processes = atol(argv[1]), threads = atol(argv[2]), rate = atol(argv[4]), all = processes * threads;
	int status = 0;

	kind_count = atol(argv[3]);
	run_ns = atof(argv[5]) * 1e9;
	burst = rate ? rate / all / BURSTS_A_SECOND : BURST_MAX;
	burst = burst < 1 ? 1 : burst > BURST_MAX ? BURST_MAX : burst;
	period_ns = rate ? burst * all * 1000000000L / rate : 0;
	total = mmap(NULL, sizeof(*total), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (kind_count < 1 || kind_count > KINDS_MAX || total == MAP_FAILED || pipe(gate) || pipe(way_out)) {
		fprintf(stderr, "storm: 1 to %ld kinds\n", KINDS_MAX);
		return 1;
	}
	if (start(processes, threads))
		return 1; // the children die with us
	puts("ready");
	fflush(stdout);
	if (!read_line())
		return 0;
	close(gate[1]);
	while (__atomic_load_n(&total->finished, __ATOMIC_ACQUIRE) < all)
		clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){ 0, LOOK_EVERY_NS }, NULL);
	printf("%ld\n", total->made);
	fflush(stdout);
	read_line();
	close(way_out[1]);
	while (wait(&status) > 0)
		if (status)
			return 1;
	puts("ended");
	fflush(stdout);
	while (read_line())
		;
	return 0;
}
