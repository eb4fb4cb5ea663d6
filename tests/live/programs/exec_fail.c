/* Executions that fail, from the leader and from another thread. */
#include "facts.h"

static void *try_all(void *prefix)
{
	char *const nothing[] = {NULL};
	char label[64];
	static const char *const cases[][2] = {
		{"missing", "/nonexistent/program"},
		{"a directory", "/tmp"},
		{"not executable", "/proc/self/status"},
	};

	for (int i = 0; i < 3; i++) {
		snprintf(label, sizeof(label), "%s, %s", (char *)prefix, cases[i][0]);
		CALL(label, SYS_execve, (long)cases[i][1], (long)nothing, (long)nothing);
	}
	return NULL;
}

int main(void)
{
	pthread_t thread;

	try_all("leader");
	if (pthread_create(&thread, NULL, try_all, "thread"))
		fail("pthread_create");
	pthread_join(thread, NULL);
	return 0;
}
