/*
 * Does what OpenTelemetry eBPF Instrumentation does with its map of trace contexts:
 *
 * spans pin PATH TYPE KEY_SIZE VALUE_SIZE   make a map and pin it
 * spans use PATH [wait]                     say which span threads are in, and make calls before, in and after it; with
 *                                           `wait` only when standard input says so, after calls in no span
 */
#include "facts.h"

#include <linux/bpf.h>
#include <poll.h>
#include <sys/resource.h>

#define ENTRIES 16384

struct context {
	unsigned char trace_id[16], span_id[8];
};

static const struct context in_span = {
	{0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c},
	{0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31},
};
static int map, channel[2];
static _Atomic pid_t server;

static long bpf(int command, union bpf_attr *attributes)
{
	return syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}

static uint64_t key_of(pid_t tid)
{
	return (uint64_t)getpid() << 32 | (uint32_t)tid;
}

static void enter_span(pid_t tid, struct context context)
{
	uint64_t key = key_of(tid);
	union bpf_attr update = {.map_fd = map, .key = (uintptr_t)&key, .value = (uintptr_t)&context};

	if (bpf(BPF_MAP_UPDATE_ELEM, &update))
		fail("BPF_MAP_UPDATE_ELEM");
}

static void leave_span(pid_t tid)
{
	uint64_t key = key_of(tid);
	union bpf_attr remove = {.map_fd = map, .key = (uintptr_t)&key};

	if (bpf(BPF_MAP_DELETE_ELEM, &remove))
		fail("BPF_MAP_DELETE_ELEM");
}

static int pin(char **words)
{
	union bpf_attr create = {
		.map_type = atoi(words[1]), .key_size = atoi(words[2]), .value_size = atoi(words[3]),
		.max_entries = ENTRIES,
	};
	union bpf_attr pin = {.pathname = (uintptr_t)words[0]};
	struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};

	setrlimit(RLIMIT_MEMLOCK, &none);	/* maps count as locked memory until Linux 5.11; if not ours to lift: making it tells */
	pin.bpf_fd = bpf(BPF_MAP_CREATE, &create);
	if ((int)pin.bpf_fd < 0 || bpf(BPF_OBJ_PIN, &pin))
		fail("pinning");
	return 0;
}

/* As a server's thread: it waits for a request, and is in the request's span when it has it. */
static void *serve(void *unused)
{
	char byte;

	server = own_tid();
	CALL("waiting", SYS_read, channel[0], (long)&byte, 1);
	CALL("serving", SYS_getppid);
	return unused;
}

static void be_served(void)
{
	pthread_t thread;

	if (pipe(channel) || pthread_create(&thread, NULL, serve, NULL))
		fail("pthread_create");
	while (!server)
		nap();
	wait_blocked(getpid(), server, SYS_read);
	enter_span(server, in_span);
	if (write(channel[1], "", 1) != 1)
		fail("write");
	pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
	union bpf_attr get = {.pathname = (uintptr_t)argv[2]};
	struct context no_span = in_span, no_trace = in_span;
	struct pollfd told = {.events = POLLIN};

	if (!strcmp(argv[1], "pin"))
		return pin(argv + 2);
	memset(no_span.span_id, 0, sizeof(no_span.span_id));
	memset(no_trace.trace_id, 0, sizeof(no_trace.trace_id));
	map = bpf(BPF_OBJ_GET, &get);
	if (map < 0)
		fail("BPF_OBJ_GET");
	if (argc > 3) {
		fact("\"ready\": %d", getpid());
		while (poll(&told, 1, 1) == 0)
			syscall(SYS_getppid);
	}
	CALL("before", SYS_getppid);
	enter_span(own_tid(), in_span);
	CALL("in", SYS_getppid);
	CALL("in, failing", SYS_close, -1);
	enter_span(own_tid(), no_span);
	CALL("without a span id", SYS_getppid);
	enter_span(own_tid(), no_trace);
	CALL("without a trace id", SYS_getppid);
	leave_span(own_tid());
	CALL("after", SYS_getppid);
	be_served();
	return 0;
}
