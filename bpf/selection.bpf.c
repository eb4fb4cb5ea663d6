/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Who is a target. Decided at birth: when a thread is forked, executes a program
 * or is renamed; the agent does the same for those that run already when it comes
 * (otel_sysexit/targets.py: the two must agree).
 *
 * Macros: different kinds must all match, of one kind any value.
 *   SELECT_ALL                   everybody
 *   SELECT_PID, SELECT_TID, SELECT_UID, SELECT_COMM, SELECT_CGROUP   those in `selection`
 *   EXE_GLOBS                    number of patterns for the executable's path
 *   EXCLUDE_PID, ..., EXE_GLOBS_EXCLUDED   left out whatever else matches
 *   CGROUP_SUBSYSTEM             index of the v1 controller that cgroup numbers belong to; without: v2
 *   NO_FOLLOW                    children of targets are targets only if they match themselves
 *   SELECTION_ENTRIES            values that can be asked for, of all kinds together
 */

#ifndef EXE_GLOBS
#define EXE_GLOBS 0
#endif
#ifndef EXE_GLOBS_EXCLUDED
#define EXE_GLOBS_EXCLUDED 0
#endif

#if defined(SELECT_PID) || defined(SELECT_TID) || defined(SELECT_UID) || defined(SELECT_COMM) || \
	defined(SELECT_CGROUP) || EXE_GLOBS
#define SELECT_SOME
#endif
#ifndef SELECTION_ENTRIES
#define SELECTION_ENTRIES 4096
#endif

/* A thread that is looked at, by its task_struct. */
struct candidate {
	u64 task;
	u32 tgid;
	u32 tid;
	u64 comm;	/* where its name is: a new one is not yet in the task */
};

/* [0]: the agent's process. No macro, so that what was compiled once serves every agent. */
BPF_ARRAY(own_tgid, u32, 1);
/* Values that were asked for. */
BPF_HASH(selection, struct selector_key, u8, SELECTION_ENTRIES);

/* It is never a target. */
static __always_inline bool is_agent(u32 tgid)
{
	u32 zero = 0;
	u32 *own = own_tgid.lookup(&zero);

	return own && *own == tgid;
}

static __always_inline bool is_listed(u64 kind, u64 value)
{
	struct selector_key key = { .kind = kind, .value = { value, 0 } };

	return selection.lookup(&key) != NULL;
}

#if defined(SELECT_COMM) || defined(EXCLUDE_COMM)

/* By the thread's own name or its process's, which is the leader's. */
static __always_inline bool has_listed_comm(struct candidate *who, u64 kind)
{
	struct selector_key key = { .kind = kind };
	u64 leader = 0;

	bpf_probe_read_kernel_str(key.value, sizeof(key.value), (void *)who->comm);
	if (selection.lookup(&key))
		return true;
	READ(leader, who->task, TASK_STRUCT_GROUP_LEADER);
	if (leader == who->task)
		return false;
	key.value[0] = key.value[1] = 0;
	bpf_probe_read_kernel_str(key.value, sizeof(key.value), (void *)(leader + TASK_STRUCT_COMM));
	return selection.lookup(&key) != NULL;
}

#endif

#if defined(SELECT_UID) || defined(EXCLUDE_UID)

static __always_inline bool has_listed_uid(struct candidate *who, u64 kind)
{
	u64 credentials = 0;
	u32 uid = 0;

	READ(credentials, who->task, TASK_STRUCT_CRED);
	READ(uid, credentials, CRED_UID);
	return is_listed(kind, uid);
}

#endif

#if defined(CGROUPS) || defined(SELECT_CGROUP) || defined(EXCLUDE_CGROUP)

/* The struct cgroup that a task is in. */
static __always_inline u64 cgroup_of(u64 task)
{
	u64 set = 0, cgroup = 0;

	READ(set, task, TASK_STRUCT_CGROUPS);
#ifdef CGROUP_SUBSYSTEM
	READ(cgroup, set, CSS_SET_SUBSYS + 8 * CGROUP_SUBSYSTEM);
	READ(cgroup, cgroup, CGROUP_SUBSYS_STATE_CGROUP);
#else
	READ(cgroup, set, CSS_SET_DFL_CGRP);
#endif
	return cgroup;
}

/* Inode number of its directory. */
static __always_inline u64 cgroup_id(u64 cgroup)
{
	u64 node = 0, id = 0;

	READ(node, cgroup, CGROUP_KN);
	READ(id, node, KERNFS_NODE_ID);
	return id;
}

#endif

#if defined(SELECT_CGROUP) || defined(EXCLUDE_CGROUP)

#define CGROUP_LEVELS_MAX 32

/* By its cgroup or any above it. */
static __always_inline bool has_listed_cgroup(struct candidate *who, u64 kind)
{
	u64 cgroup = cgroup_of(who->task), state;
	int i;

	for (i = 0; i < CGROUP_LEVELS_MAX; i++) {
		state = 0;
		if (is_listed(kind, cgroup_id(cgroup)))
			return true;
		READ(state, cgroup, CGROUP_SELF + CGROUP_SUBSYS_STATE_PARENT);
		if (!state)
			return false;
		READ(cgroup, state, CGROUP_SUBSYS_STATE_CGROUP);
	}
	return false;
}

#endif

#if EXE_GLOBS + EXE_GLOBS_EXCLUDED

struct glob {
	char text[GLOB_SIZE];
};
/* Those that choose, then those that exclude. */
BPF_ARRAY(exe_globs, struct glob, EXE_GLOBS + EXE_GLOBS_EXCLUDED);

/* How far a pattern was compared with a path. */
struct glob_match {
	struct path_scratch path;
	u32 glob;		/* index of the pattern */
	u32 at;			/* in the path */
	u32 in_glob;
	u32 star;		/* 1 + where the last * stands in the pattern; 0: none yet */
	u32 star_at;		/* where in the path what it stands for ends, so far */
};
/* By tid: on recent kernels the sched tracepoints may be preempted, so one for a CPU would be shared. */
BPF_HASH(glob_matches, u32, struct glob_match, 1024);
BPF_ARRAY(no_match, struct glob_match, 1);

#define GLOB_STEPS_MAX 1024	/* of all patterns together: each leaves branches to remember, and verifiers remember 8,192 */

static __always_inline void begin_glob(volatile struct glob_match *match, u32 glob)
{
	match->glob = glob;
	match->at = match->path.start;
	match->in_glob = 0;
	match->star = 0;
}

/*
 * Does one of the patterns *first* ... *end* - 1 match the whole path? * is any
 * text, ? any byte, \ takes the next one as it is. The state is kept in memory,
 * so that each step, which compares two bytes, is one and the same to the verifier.
 */
static __always_inline bool matches_a_glob(volatile struct glob_match *match, u32 first, u32 end)
{
	u64 at, in_glob;
	struct glob *glob;
	char have, want;
	u32 index;
	int i;

	begin_glob(match, first);
	for (i = 0; i < GLOB_STEPS_MAX; i++) {
		index = match->glob;
		glob = exe_globs.lookup(&index);
		if (index >= end || !glob)
			return false;
		at = match->at;
		in_glob = match->in_glob;
		asm volatile("%0 &= 4095" : "+r"(at));
		asm volatile("%0 &= 255" : "+r"(in_glob));
		have = match->path.text[at];
		want = glob->text[in_glob];
		if (want == '*') {
			match->star = in_glob + 1;
			match->star_at = at;
			match->in_glob = in_glob + 1;
			continue;
		}
		if (!have && !want)
			return true;
		if (want == '\\') {
			in_glob += 1;
			want = glob->text[in_glob];
		} else if (want == '?') {
			want = have;
		}
		if (have && want == have) {
			match->at = at + 1;
			match->in_glob = in_glob + 1;
		} else if (have && match->star) {
			match->star_at += 1;
			match->at = match->star_at;
			match->in_glob = match->star;
		} else {
			begin_glob(match, index + 1);
		}
	}
	count_atomically(LEDGER_THREADS_UNFOLLOWED);	/* undecided */
	return false;
}

/* Does its executable match one of the patterns *first* ... *end* - 1? */
static __always_inline bool has_listed_exe(struct candidate *who, u32 first, u32 end)
{
	u64 mm = 0, file = 0, dentry = 0, mount = 0;
	u32 tid = (u32)bpf_get_current_pid_tgid(), zero = 0;
	struct glob_match *match, *fresh = no_match.lookup(&zero);
	bool is_matched;

	READ(mm, who->task, TASK_STRUCT_MM);
	if (!mm || !fresh)	/* a kernel thread */
		return false;
	READ(file, mm, MM_STRUCT_EXE_FILE);
	READ(dentry, file, FILE_F_PATH_DENTRY);
	READ(mount, file, FILE_F_PATH_MNT);
	glob_matches.update(&tid, fresh);
	match = glob_matches.lookup(&tid);
	if (!match) {	/* more than 1,024 at one moment */
		count_atomically(LEDGER_THREADS_UNFOLLOWED);
		return false;
	}
	write_path(&match->path, dentry, mount);
	is_matched = matches_a_glob(match, first, end);
	glob_matches.delete(&tid);
	return is_matched;
}

#endif

/* Is it chosen by what it is, not by where it comes from? */
static __always_inline bool is_selected(struct candidate *who)
{
	if (is_agent(who->tgid))
		return false;
#ifdef SELECT_ALL
	return true;
#else
#ifdef SELECT_PID
	if (!is_listed(SELECTOR_PID, who->tgid))
		return false;
#endif
#ifdef SELECT_TID
	if (!is_listed(SELECTOR_TID, who->tid))
		return false;
#endif
#ifdef SELECT_UID
	if (!has_listed_uid(who, SELECTOR_UID))
		return false;
#endif
#ifdef SELECT_COMM
	if (!has_listed_comm(who, SELECTOR_COMM))
		return false;
#endif
#ifdef SELECT_CGROUP
	if (!has_listed_cgroup(who, SELECTOR_CGROUP))
		return false;
#endif
#if EXE_GLOBS
	if (!has_listed_exe(who, 0, EXE_GLOBS))
		return false;
#endif
#ifdef SELECT_SOME
	return true;
#else
	return false;
#endif
#endif
}

static __always_inline bool is_excluded(struct candidate *who)
{
#ifdef EXCLUDE_PID
	if (is_listed(SELECTOR_PID + SELECTOR_EXCLUDED, who->tgid))
		return true;
#endif
#ifdef EXCLUDE_TID
	if (is_listed(SELECTOR_TID + SELECTOR_EXCLUDED, who->tid))
		return true;
#endif
#ifdef EXCLUDE_UID
	if (has_listed_uid(who, SELECTOR_UID + SELECTOR_EXCLUDED))
		return true;
#endif
#ifdef EXCLUDE_COMM
	if (has_listed_comm(who, SELECTOR_COMM + SELECTOR_EXCLUDED))
		return true;
#endif
#ifdef EXCLUDE_CGROUP
	if (has_listed_cgroup(who, SELECTOR_CGROUP + SELECTOR_EXCLUDED))
		return true;
#endif
#if EXE_GLOBS_EXCLUDED
	if (has_listed_exe(who, EXE_GLOBS, EXE_GLOBS + EXE_GLOBS_EXCLUDED))
		return true;
#endif
	return is_agent(who->tgid);
}

/* A thread has another id now. */
static __always_inline void forget_tid(u32 tid)
{
#if defined(SELECT_TID) || defined(EXCLUDE_TID)
	struct selector_key key = { .kind = SELECTOR_TID, .value = { tid, 0 } };

	selection.delete(&key);
	key.kind = SELECTOR_TID + SELECTOR_EXCLUDED;
	selection.delete(&key);
#endif
}

/* A thread has ended: its ids may be given to another one. */
static __always_inline void forget_ids(u64 task, u32 tgid, u32 tid)
{
	forget_tid(tid);
#if defined(SELECT_PID) || defined(EXCLUDE_PID)
	struct selector_key key = { .kind = SELECTOR_PID, .value = { tgid, 0 } };
	u64 signal = 0;
	u32 live = 0;

	READ(signal, task, TASK_STRUCT_SIGNAL);
	READ(live, signal, SIGNAL_STRUCT_LIVE);
	if (live)
		return;
	selection.delete(&key);
	key.kind = SELECTOR_PID + SELECTOR_EXCLUDED;
	selection.delete(&key);
#endif
}
