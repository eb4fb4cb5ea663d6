/* await_signal COUNT: says when it is ready, then which signals it gets; leaves after so many of them. */
#include "facts.h"

int main(int argc, char **argv)
{
	int wanted[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGCONT};
	sigset_t signals;
	int signal = 0;

	sigemptyset(&signals);
	for (unsigned int i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		sigaddset(&signals, wanted[i]);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	fact("\"ready\": %d", getpid());
	for (int left = argc > 1 ? atoi(argv[1]) : 1; left > 0; left--) {
		while ((signal = sigwaitinfo(&signals, NULL)) < 0)
			;
		fact("\"signal\": %d", signal);
	}
	return 40 + signal;
}
