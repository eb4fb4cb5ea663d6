/* getppid COUNT [THREADS]: so many calls in each thread, nothing else of that name. */
#include "facts.h"

static long count;

static void *work(void *unused)
{
	long long before = now_ns();
	long ret = 0;

	for (long i = 0; i < count; i++)
		ret = syscall(SYS_getppid);
	report("getppid", SYS_getppid, ret, own_tid(), before, now_ns());
	return unused;
}

int main(int argc, char **argv)
{
	int threads = argc > 2 ? atoi(argv[2]) : 0;
	pthread_t others[16];

	count = atol(argv[1]);
	for (int i = 0; i < threads; i++)
		if (pthread_create(&others[i], NULL, work, NULL))
			fail("pthread_create");
	for (int i = 0; i < threads; i++)
		pthread_join(others[i], NULL);
	if (!threads)
		work(NULL);
	return 0;
}
