/*
 * getppid under a seccomp filter with a supervisor: it answers with a value, then with an error,
 * and then, 20 ms late, lets the call go on.
 */
#include "filters.h"
#include <sys/ioctl.h>

#define DELAY_NS 20000000

static volatile int listener = -1;

static void answer(long long value, int error, unsigned int flags, long delay_ns)
{
	struct timespec delay = {0, delay_ns};
	struct seccomp_notif request = {0};
	struct seccomp_notif_resp response = {.val = value, .error = error, .flags = flags};

	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request))
		fail("receive");
	if (delay_ns)
		syscall(SYS_nanosleep, &delay, NULL);
	response.id = request.id;
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response))
		fail("send");
}

static void *supervise(void *unused)
{
	while (listener < 0)
		nap();
	answer(4242, 0, 0, 0);
	answer(0, -EXDEV, 0, 0);
	answer(0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE, DELAY_NS);
	return unused;
}

int main(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, supervise, NULL))
		fail("pthread_create");
	listener = install_filter(SYS_getppid, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
	CALL("answered", SYS_getppid, 0);
	CALL("refused", SYS_getppid, 0);
	CALL("continued", SYS_getppid, 0);
	pthread_join(thread, NULL);
	return 0;
}
