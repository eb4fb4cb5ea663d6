/* What a program inherits from the one that started it: masks, descriptors, limits, session, priority. */
#include "facts.h"
#include <dirent.h>
#include <limits.h>
#include <sys/resource.h>

static int is_wanted(const char *line)
{
	static const char *const wanted[] = {"SigBlk:", "SigIgn:", "SigCgt:", "NoNewPrivs:", "Seccomp:", "CapInh:",
					     "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "Umask:", "Uid:", "Gid:",
					     "Groups:", "Cpus_allowed:", "TracerPid:", "CoreDumping:"};

	for (unsigned int i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		if (!strncmp(line, wanted[i], strlen(wanted[i])))
			return 1;
	return 0;
}

static void print_status(void)
{
	FILE *status = fopen("/proc/self/status", "re");
	char line[4096], *value;

	while (status && fgets(line, sizeof(line), status)) {
		value = strchr(line, ':');
		if (!value || !is_wanted(line))
			continue;
		*value++ = 0;
		for (char *letter = value; *letter; letter++)
			if (*letter == '\t' || *letter == '\n')
				*letter = ' ';
		fact("\"%s\": \"%s\"", line, value);
	}
	if (status)
		fclose(status);
}

static void print_descriptors(void)
{
	DIR *descriptors = opendir("/proc/self/fd");
	char target[PATH_MAX];
	struct dirent *entry;
	ssize_t length;

	while (descriptors && (entry = readdir(descriptors))) {
		if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(descriptors))
			continue;
		length = readlinkat(dirfd(descriptors), entry->d_name, target, sizeof(target) - 1);
		target[length > 0 ? length : 0] = 0;
		/* The three standard ones differ from run to run: only that they are there counts. */
		fact("\"descriptor %s\": \"%s\"", entry->d_name, atoi(entry->d_name) < 3 ? "" : target);
	}
}

int main(void)
{
	struct rlimit limit;
	char directory[PATH_MAX];
	sigset_t pending;
	int waiting = 0;

	print_descriptors();
	print_status();
	for (int resource = 0; resource < RLIM_NLIMITS; resource++)
		if (!getrlimit(resource, &limit))
			fact("\"limit %d\": \"%llu %llu\"", resource, (unsigned long long)limit.rlim_cur,
			     (unsigned long long)limit.rlim_max);
	sigpending(&pending);
	for (int signal = 1; signal < 65; signal++)
		waiting += sigismember(&pending, signal) == 1;
	fact("\"pending signals\": \"%d\"", waiting);
	fact("\"directory\": \"%s\"", getcwd(directory, sizeof(directory)));
	fact("\"priority\": \"%d %d\"", getpriority(PRIO_PROCESS, 0), sched_getscheduler(0));
	fact("\"session\": \"%d\"", getsid(0));
	fact("\"group\": \"%d\"", getpgid(0));
	for (char **variable = environ; *variable; variable++)
		fact("\"variable %.*s\": \"%s\"", (int)strcspn(*variable, "="), *variable,
		     *variable + strcspn(*variable, "="));
	return 0;
}
