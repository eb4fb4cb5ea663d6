/* Numbers that are no calls, and calls that only the kernel's own code may make. */
#include "facts.h"

static void try_number(long nr)
{
	char label[32];

	snprintf(label, sizeof(label), "%ld", nr);
	CALL(label, nr, 0);
}

int main(void)
{
	try_number(-1);
	try_number(9999);
	try_number(500);
	try_number(-39);
	try_number(0x7fffffff);
	try_number(0x100000027);
	try_number(0x40000027);
	return 0;
}
