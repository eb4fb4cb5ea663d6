/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Threads come and go: slots follow them, and the agent is told who they are.
 */

#define UPID_SIZE 16	/* struct upid: the number, then a pointer to its namespace */

static __always_inline void read_process(struct task_record *record, u64 task)
{
	u64 leader = 0, parent = 0, credentials = 0, pid = 0;
	u32 level = 0;

	READ(record->tgid, task, TASK_STRUCT_TGID);
	READ(record->tid, task, TASK_STRUCT_PID);
	READ(leader, task, TASK_STRUCT_GROUP_LEADER);
	READ(record->start_ns, leader, TASK_STRUCT_START_BOOTTIME);
	READ(parent, leader, TASK_STRUCT_REAL_PARENT);
	READ(record->parent_tgid, parent, TASK_STRUCT_TGID);
	READ(record->comm, task, TASK_STRUCT_COMM);
	READ(credentials, task, TASK_STRUCT_CRED);
	READ(record->uid, credentials, CRED_UID);
	READ(record->euid, credentials, CRED_EUID);
	READ(record->gid, credentials, CRED_GID);
	READ(record->egid, credentials, CRED_EGID);
	READ(pid, leader, TASK_STRUCT_THREAD_PID);
	READ(level, pid, PID_LEVEL);
	READ(record->vpid, pid, PID_NUMBERS + UPID_SIZE * (u64)level);
#ifdef CGROUPS
	record->cgroup = cgroup_id(cgroup_of(task));
#endif
}

/* Every byte is zero or set. A full ring is counted. */
static __always_inline struct task_record *reserve_task(u8 kind, u64 task)
{
	struct task_record *record = tasks.ringbuf_reserve(sizeof(struct task_record));

	if (!record) {
		count_atomically(LEDGER_TASKS_DROPPED);
		return NULL;
	}
	__builtin_memset(record, 0, sizeof(*record));
	record->time_ns = bpf_ktime_get_boot_ns();
	record->kind = kind;
	read_process(record, task);
	record->previous_tid = record->tid;
	return record;
}

/* With --all who is left out belongs to nobody; elsewhere it is part of a target's family. */
static __always_inline bool is_told(struct slot *slot)
{
#ifdef SELECT_ALL
	return slot->was_target;
#else
	return true;
#endif
}

/* Is a thread that a target creates a target, too, because of that? */
static __always_inline bool is_followed(struct slot *creator, bool is_thread)
{
	if (creator->state == SLOT_LAUNCHING)
		return false;
#ifdef NO_FOLLOW
#ifdef SELECT_TID
	return false;
#else
	return is_thread && creator->state != SLOT_EXCLUDED;
#endif
#else
	return true;
#endif
}

/* Makes a slot for a thread that is heard of at its birth or change. NULL: there is no room, which is counted. */
static __always_inline struct slot *follow(struct candidate *who, bool is_left_out, u8 state)
{
	struct slot *slot = add_slot(who->tid, who->tgid, is_left_out ? SLOT_EXCLUDED : state);

	if (!slot)
		count_atomically(LEDGER_THREADS_UNFOLLOWED);
	return slot;
}

/*
 * TP_PROTO(struct task_struct *parent, struct task_struct *child)
 * Runs in the parent, before the child does: its first call finds the slot.
 */
int on_sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u32 tid = (u32)pid_tgid;
	struct candidate child = { .task = ctx->args[1], .comm = ctx->args[1] + TASK_STRUCT_COMM };
	struct slot *slot = find_slot(tid);
	struct task_record *record;

	READ(child.tid, child.task, TASK_STRUCT_PID);
	READ(child.tgid, child.task, TASK_STRUCT_TGID);
	if (!(slot && is_followed(slot, child.tgid == pid_tgid >> 32)) &&
	    !is_selected(&child))	/* filter: neither a target's child nor chosen itself */
		return 0;
	slot = follow(&child, is_excluded(&child), BORN_STATE);
	if (!slot)	/* not followed: counted there */
		return 0;
	if (!is_told(slot))	/* filter: of no interest */
		return 0;
	record = reserve_task(TASK_THREAD_START, child.task);
	if (!record)	/* dropped: counted there */
		return 0;
	if (child.tid == child.tgid)
		record->kind = TASK_PROCESS_START;
	record->previous_tid = tid;
	tasks.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}

/* *is_user*: the address is the program's, not the kernel's. A full ring is counted. */
static __always_inline void emit_exec_string(u64 address, bool is_user, u8 role, struct slot *slot)
{
	struct string_record *record = exec_strings.ringbuf_reserve(sizeof(struct string_record));
	int length;

	if (!record) {
		count_atomically(LEDGER_STRINGS_DROPPED);
		return;
	}
	begin_string(record, role, slot->string_seq, slot->string_cpu);
	if (is_user)
		length = bpf_probe_read_user_str(record->text, STRING_READ, (void *)address);
	else
		length = bpf_probe_read_kernel_str(record->text, STRING_READ, (void *)address);
	end_text(record, length);
	exec_strings.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

#ifdef COMMAND_ARGS
/* All arguments, as they lie in the new program's memory: one behind the other, each with its NUL. */
static __always_inline void emit_argv(u64 argv, u64 mm, struct slot *slot)
{
	struct string_record *record = exec_strings.ringbuf_reserve(sizeof(struct string_record));
	u64 end = 0, size;
	int error;

	if (!record) {
		count_atomically(LEDGER_STRINGS_DROPPED);
		return;
	}
	begin_string(record, STRING_ARGV, slot->string_seq, slot->string_cpu);
	READ(end, mm, MM_STRUCT_ARG_END);
	size = end - argv;
	if (size > STRING_LIMIT)
		size = STRING_LIMIT;
	error = bpf_probe_read_user(record->text, size, (void *)argv);
	end_bytes(record, error, end - argv > STRING_LIMIT ? STRING_LIMIT + 1 : end - argv);
	exec_strings.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}
#endif

#define EXECS_AT_ONCE_MAX 256

/*
 * What is found out of an exec before anything is decided. In memory, whose contents a verifier does not follow: it goes
 * through a long loop once for each state in which it comes there, and through what follows once for each end of it.
 */
struct exec_scratch {
	struct path_scratch path;	/* of the file that became the program, as readlink on /proc/PID/exe has it */
	u32 is_selected;
	u32 is_excluded;
};
/* By tid: here we may be preempted. */
BPF_HASH(exec_scratches, u32, struct exec_scratch, EXECS_AT_ONCE_MAX);
BPF_ARRAY(no_exec, struct exec_scratch, 1);

static __always_inline void look_at_exec(struct candidate *who)
{
	u64 mm = 0, file = 0, dentry = 0, mount = 0;
	u32 tid = who->tid, zero = 0;
	struct exec_scratch *scratch, *fresh = no_exec.lookup(&zero);

	if (fresh)
		exec_scratches.update(&tid, fresh);
	scratch = exec_scratches.lookup(&tid);
	if (!scratch) {	/* too many at one moment */
		count_atomically(LEDGER_THREADS_UNFOLLOWED);
		return;
	}
	READ(mm, who->task, TASK_STRUCT_MM);
	READ(file, mm, MM_STRUCT_EXE_FILE);
	READ(dentry, file, FILE_F_PATH_DENTRY);
	READ(mount, file, FILE_F_PATH_MNT);
	write_path(&scratch->path, dentry, mount);
	scratch->is_selected = is_selected(who);
	scratch->is_excluded = is_excluded(who);
}

/* The file that became the program: its path, or its name alone where that is longer than what is kept. */
static __always_inline void emit_executable(struct slot *slot, struct exec_scratch *scratch, u64 mm)
{
	u64 file = 0, dentry = 0, name = 0, at;

	READ(file, mm, MM_STRUCT_EXE_FILE);
	READ(dentry, file, FILE_F_PATH_DENTRY);
	READ(name, dentry, DENTRY_D_NAME_NAME);
	if (scratch && scratch->path.is_whole && PATH_ROOM - 1 - scratch->path.start <= STRING_LIMIT) {
		at = scratch->path.start;
		asm volatile("%0 &= 4095" : "+r"(at));
		name = (u64)(scratch->path.text + at);
	}
	emit_exec_string(name, false, STRING_EXECUTABLE, slot);
}

/* What was executed, and as what: strings named by the slot for the call and by the record for the process. */
static __always_inline void emit_exec_strings(struct slot *slot, struct exec_scratch *scratch, u64 task, u64 filename)
{
	u64 mm = 0, argv = 0;

	/* Not by a counter of the CPU: here we may be preempted. By the thread, and the how manieth of its execs this is. */
	slot->string_cpu = EXEC_STRINGS | (slot->string_cpu + 1);
	slot->string_seq = slot->tid;
	emit_exec_string(filename, false, STRING_FIRST_PATH, slot);
	READ(mm, task, TASK_STRUCT_MM);
	READ(argv, mm, MM_STRUCT_ARG_START);
	emit_exec_string(argv, true, STRING_COMMAND, slot);
#ifdef COMMAND_ARGS
	emit_argv(argv, mm, slot);
#endif
	emit_executable(slot, scratch, mm);
}

/* A call in flight by which its thread stopped being a target. */
static __always_inline void discard_call(struct slot *slot)
{
	if (slot->start_ns > SAMPLED_OUT_AT_ENTER)
		count_atomically(LEDGER_FILTERED_EXCLUDED);
	slot->start_ns = 0;
}

/* What a thread is by itself, wherever it comes from. */
struct judgement {
	bool is_selected;
	bool is_excluded;
};

/* Before its slot is looked for: patterns are compared in long loops, which a verifier goes through once for each kind of slot. */
static __always_inline struct judgement judge(struct candidate *who)
{
	return (struct judgement){ .is_selected = is_selected(who), .is_excluded = is_excluded(who) };
}

/* Is a target left out for what it has become? */
static __always_inline bool is_left_out(struct judgement *now)
{
#if defined(NO_FOLLOW) && defined(SELECT_SOME)
	if (!now->is_selected)
		return true;
#endif
	return now->is_excluded;
}

/* A thread has become something else. NULL: it is no target. */
static __always_inline struct slot *judge_again(struct slot *slot, struct candidate *who, struct judgement *now)
{
	if (!slot)
		return now->is_selected ? follow(who, now->is_excluded, SLOT_ATTACHED) : NULL;
	if (is_left_out(now)) {
		discard_call(slot);
		slot->state = SLOT_EXCLUDED;
	} else if (slot->state == SLOT_EXCLUDED) {
		slot->state = SLOT_ATTACHED;
		slot->was_target = 1;
	}
	return slot;
}

#ifdef PERF_EVENTS
struct exec_context {	/* struct trace_event_raw_sched_process_exec */
	u64 common;
	u32 filename;	/* offset in the record, length << 16 */
	s32 pid;
	s32 old_pid;
};
#define context_old_tid(ctx) ((u32)(ctx)->old_pid)

static __always_inline u64 exec_filename(struct exec_context *ctx)
{
	return (u64)((void *)ctx + (ctx->filename & 0xffff));
}
#else
#define exec_context bpf_raw_tracepoint_args	/* TP_PROTO(struct task_struct *, pid_t old_pid, struct linux_binprm *) */
#define context_old_tid(ctx) ((u32)(ctx)->args[1])

static __always_inline u64 exec_filename(struct exec_context *ctx)
{
	u64 filename = 0;

	READ(filename, ctx->args[2], LINUX_BINPRM_FILENAME);
	return filename;
}
#endif

static __always_inline void follow_exec(struct candidate *who, struct exec_context *ctx)
{
	u32 tid = who->tid, old_tid = context_old_tid(ctx);
	struct exec_scratch *scratch = exec_scratches.lookup(&tid);
	struct judgement now = {};
	struct task_record *record;
	struct slot *slot;

	if (scratch) {
		now.is_selected = scratch->is_selected;
		now.is_excluded = scratch->is_excluded;
	}
	slot = old_tid == tid ? find_slot(tid) : move_slot(old_tid, tid);
	if (slot && slot->state == SLOT_LAUNCHING)	/* the command begins, whether or not its execve is in the set */
		slot->state = SLOT_NORMAL;
	slot = judge_again(slot, who, &now);
	if (old_tid != tid)
		forget_tid(old_tid);
	if (!slot || !is_told(slot))	/* filter: not a target */
		return;
	slot->has_execed = 1;
	emit_exec_strings(slot, scratch, who->task, exec_filename(ctx));
	record = reserve_task(TASK_EXEC, who->task);
	if (!record)	/* dropped: counted there */
		return;
	record->previous_tid = old_tid;
	record->string_seq = slot->string_seq;
	record->string_cpu = slot->string_cpu;
	tasks.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

int on_sched_process_exec(struct exec_context *ctx)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	struct candidate who = { .task = bpf_get_current_task(), .tgid = pid_tgid >> 32, .tid = (u32)pid_tgid };
	u32 tid = who.tid;

	who.comm = who.task + TASK_STRUCT_COMM;
	look_at_exec(&who);
	follow_exec(&who, ctx);
	exec_scratches.delete(&tid);
	return DONE;
}

/* TP_PROTO(struct task_struct *task, const char *comm): comm is the new name, not yet in the task. */
int on_task_rename(struct bpf_raw_tracepoint_args *ctx)
{
	struct candidate who = { .task = ctx->args[0], .comm = ctx->args[1] };
#if defined(SELECT_COMM) || defined(EXCLUDE_COMM)
	struct judgement now;
#endif
	struct task_record *record;
	struct slot *slot;

	READ(who.tid, who.task, TASK_STRUCT_PID);
	READ(who.tgid, who.task, TASK_STRUCT_TGID);
#if defined(SELECT_COMM) || defined(EXCLUDE_COMM)
	now = judge(&who);
#endif
	slot = find_slot(who.tid);
	if (slot && slot->state == SLOT_LAUNCHING)	/* filter: not a target yet */
		return 0;
#if defined(SELECT_COMM) || defined(EXCLUDE_COMM)
	slot = judge_again(slot, &who, &now);
#endif
	if (!slot || !is_told(slot))	/* filter: not a target */
		return 0;
	record = reserve_task(TASK_RENAME, who.task);
	if (!record)	/* dropped: counted there */
		return 0;
	/* Zero padded by its writer (strscpy_pad in __set_task_comm and its callers), but only up to the NUL for sure. */
	__builtin_memset(record->comm, 0, sizeof(record->comm));
	bpf_probe_read_kernel_str(record->comm, sizeof(record->comm), (void *)who.comm);
	tasks.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}

#define SIGNAL_GROUP_EXIT 0x4	/* include/linux/sched/signal.h */

/* The status that wait(2) will give: the group's when it ended as one, else the leader's. */
static __always_inline void read_end(struct task_record *record, u64 task)
{
	u64 signal = 0, leader = 0;
	u32 live = 0, flags = 0;

	READ(signal, task, TASK_STRUCT_SIGNAL);
	READ(live, signal, SIGNAL_STRUCT_LIVE);
	READ(flags, signal, SIGNAL_STRUCT_FLAGS);
	record->is_last = live == 0;
	if (flags & SIGNAL_GROUP_EXIT) {
		READ(record->wait_status, signal, SIGNAL_STRUCT_GROUP_EXIT_CODE);
	} else {
		READ(leader, task, TASK_STRUCT_GROUP_LEADER);
		READ(record->wait_status, leader, TASK_STRUCT_EXIT_CODE);
	}
}

/*
 * Runs in the thread that ends. A call still in flight never returns: it ends with
 * its thread. The slot goes before the tid can be used again.
 */
int on_sched_process_exit(void *ctx)
{
	u64 task = bpf_get_current_task(), pid_tgid = bpf_get_current_pid_tgid();
	u32 tid = (u32)pid_tgid;
	struct slot *slot = find_slot(tid);
	struct finished call = {};
	struct task_record *record;
	u32 zero = 0, *closing;
	bool is_told_of;

	forget_ids(task, pid_tgid >> 32, tid);
	if (!slot)	/* filter: not a target */
		return DONE;
	closing = is_closing.lookup(&zero);
	if (closing && *closing && !is_exit(slot->abi, slot->nr))	/* its return came after sys_exit was detached */
		return DONE;
	if (slot->start_ns > SAMPLED_OUT_AT_ENTER) {
		call.start_ns = slot->start_ns;
		call.duration_ns = bpf_ktime_get_boot_ns() - call.start_ns;
		call.kind = CALL_NEVER_RETURNED;
		emit_call(slot, &call);
	}
	is_told_of = is_told(slot);
	delete_slot(tid);
	if (!is_told_of)	/* filter: of no interest */
		return DONE;
	record = reserve_task(TASK_END, task);
	if (!record)	/* dropped: counted there */
		return DONE;
	read_end(record, task);
	tasks.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return DONE;
}
