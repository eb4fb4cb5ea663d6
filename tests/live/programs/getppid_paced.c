/* getppid so many times a second, for some seconds: getppid_paced SECONDS CALLS_A_SECOND. */
#include "facts.h"

int main(int argc, char **argv)
{
	long long seconds = argc > 1 ? atoll(argv[1]) : 1, rate = argc > 2 ? atoll(argv[2]) : 1000;
	long long begin = now_ns(), end = begin + seconds * 1000000000LL, calls = 0;

	while (now_ns() < end) {
		if (calls * 1000000000LL / rate < now_ns() - begin) {
			syscall(SYS_getppid);
			calls++;
		} else {
			nap();
		}
	}
	fact("\"calls\": %lld", calls);
	return 0;
}
