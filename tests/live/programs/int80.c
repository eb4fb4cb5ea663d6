/* Calls by `int 0x80` in a 64-bit program, next to the same numbers by `syscall`. */
#include "facts.h"

#ifndef __x86_64__
#error "int 0x80 is an instruction of x86"
#endif

static long int80(const char *label, long nr, long first)
{
	long long before = now_ns(), after;
	long ret;

	asm volatile("int $0x80"
		     : "=a"(ret)
		     : "a"(nr), "b"(first), "c"(0), "d"(0), "S"(0), "D"(0)
		     : "memory", "r8", "r9", "r10", "r11");
	after = now_ns();
	report(label, (int)nr, (int)ret, own_tid(), before, after);
	return ret;
}

int main(void)
{
	int80("i386 getpid", 20, 0);
	CALL("x86_64 writev", 20, -1);
	int80("i386 mkdir", 39, 0);
	CALL("x86_64 getpid", 39, 0);
	int80("i386 close", 6, 9999);
	int80("i386 -1", -1, 0);
	int80("i386 9999", 9999, 0);
	int80("i386 getppid", 64, 0);
	return 0;
}
