/*
 * publisher MEMORY FAULT FILE: publishes the bytes of FILE as its process context (OTEP 4719), says so, and waits.
 *
 * MEMORY is where the header lies: memfd, or anonymous, which only a kernel that names memory can tell.
 * FAULT is what is wrong with it: none, signature, version, timestamp, empty, pointer.
 * With updates the file holds two payloads of one length, which take turns in one place until the end.
 */
#include "facts.h"
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

struct header {
	char signature[8];
	uint32_t version;
	uint32_t payload_size;
	uint64_t published_ns;
	uint64_t payload;
};

static char *map(size_t size, int file)
{
	int flags = MAP_PRIVATE | (file < 0 ? MAP_ANONYMOUS : 0);
	char *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, file, 0);

	if (mapped == MAP_FAILED)
		fail("mmap");
	return mapped;
}

static struct header *make_header(int is_memfd)
{
	struct header *header;
	int file = -1;

	if (is_memfd) {
		file = syscall(SYS_memfd_create, "OTEL_CTX", 3 /* close on exec, allow sealing */);
		if (file < 0 || ftruncate(file, sizeof(*header)))
			fail("memfd_create");
	}
	header = (struct header *)map(sizeof(*header), file);
	if (is_memfd)
		close(file);
	if (madvise(header, sizeof(*header), MADV_DONTFORK))
		fail("madvise");
	return header;
}

static char *read_payload(const char *path, size_t *size)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	char *payload;

	if (file < 0 || fstat(file, &status))
		fail("open");
	*size = status.st_size;
	payload = map(*size, -1);
	if (read(file, payload, *size) != (ssize_t)*size)
		fail("read");
	close(file);
	return payload;
}

/* An address at which nothing is mapped. */
static char *nowhere(void)
{
	char *gone = map(4096, -1);

	munmap(gone, 4096);
	return gone;
}

static void publish(struct header *header, const char *fault, const char *payload, size_t size)
{
	header->version = strcmp(fault, "version") ? 2 : 1;
	header->payload_size = strcmp(fault, "empty") ? size : 0;
	header->payload = (uintptr_t)(strcmp(fault, "pointer") ? payload : nowhere());
	header->published_ns = strcmp(fault, "timestamp") ? now_ns() : 0;
	__sync_synchronize();
	memcpy(header->signature, strcmp(fault, "signature") ? "OTEL_CTX" : "OTEL_ctx", 8);
}

static void update(struct header *header, char *payload, const char *next, size_t size)
{
	volatile uint64_t *published_ns = &header->published_ns;

	*published_ns = 0;
	__sync_synchronize();
	memcpy(payload, next, size);
	__sync_synchronize();
	*published_ns = now_ns();
}

/* Updates without end, each of them soon enough for some reader to be in the middle. */
static void keep_updating(struct header *header, const char *payloads, size_t size)
{
	char *payload = (char *)(uintptr_t)header->payload;

	for (int turn = 0;; turn++) {
		long long until = now_ns() + turn % 100 * 1000;

		update(header, payload, payloads + turn % 2 * size, size);
		while (now_ns() < until)
			;
	}
}

int main(int argc, char **argv)
{
	int is_memfd = !strcmp(argv[1], "memfd"), is_updating = !strcmp(argv[2], "updates"), is_named;
	struct header *header = make_header(is_memfd);
	size_t size;
	char *both = read_payload(argv[3], &size), *payload = both;

	if (is_updating) {
		size /= 2;
		payload = map(size, -1);
		memcpy(payload, both, size);
	}
	publish(header, argv[2], payload, size);
	is_named = !prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, header, sizeof(*header), "OTEL_CTX");
	if (!is_memfd && !is_named)
		lack("names of anonymous memory");
	fact("\"published\": %d, \"named\": %d", getpid(), is_named);
	if (is_updating)
		keep_updating(header, both, size);
	for (;;)
		usleep(10 * 1000);
}
