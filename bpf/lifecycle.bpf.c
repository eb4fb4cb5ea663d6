/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Threads come and go: slots follow them, and the agent is told who they are.
 * Follows calls.bpf.c in the text that is compiled; the maps and the inlines are there.
 */

static __always_inline void read_process(struct task_record *record, u64 task)
{
	u64 leader = 0, parent = 0;

	READ(record->tgid, task, TASK_STRUCT_TGID);
	READ(record->tid, task, TASK_STRUCT_PID);
	READ(leader, task, TASK_STRUCT_GROUP_LEADER);
	READ(record->start_ns, leader, TASK_STRUCT_START_BOOTTIME);
	READ(parent, leader, TASK_STRUCT_REAL_PARENT);
	READ(record->parent_tgid, parent, TASK_STRUCT_TGID);
	READ(record->comm, task, TASK_STRUCT_COMM);
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
	record->uid = (u32)bpf_get_current_uid_gid();
	read_process(record, task);
	record->previous_tid = record->tid;
	return record;
}

/*
 * TP_PROTO(struct task_struct *parent, struct task_struct *child)
 * Runs in the parent, before the child does: its first call finds the slot.
 */
int on_sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u64 child = ctx->args[1];
	u32 tid = (u32)bpf_get_current_pid_tgid(), child_tid = 0;
	struct slot newborn = { .state = SLOT_NEWBORN, .interrupted_nr = -1 };
	struct slot *slot = pending.lookup(&tid);
	struct task_record *record;

	if (!slot || slot->state == SLOT_LAUNCHING)	/* filter: not a target's child */
		return 0;
	READ(child_tid, child, TASK_STRUCT_PID);
	if (pending.update(&child_tid, &newborn)) {
		count_atomically(LEDGER_THREADS_UNFOLLOWED);
		return 0;
	}
	record = reserve_task(TASK_THREAD_START, child);
	if (!record)	/* dropped: counted there */
		return 0;
	if (record->tid == record->tgid)
		record->kind = TASK_PROCESS_START;
	record->previous_tid = tid;
	tasks.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}

/* An exec by a thread that is not the leader takes the leader's tid: its slot goes with it. */
static __always_inline struct slot *move_slot(u32 from, u32 to)
{
	struct slot *slot = pending.lookup(&from);
	struct slot copy;

	if (!slot)
		return NULL;
	copy = *slot;
	if (pending.update(&to, &copy)) {
		count_atomically(LEDGER_THREADS_UNFOLLOWED);
		if (copy.start_ns)
			count_atomically(LEDGER_DROPPED_OVERWRITTEN);
	}
	pending.delete(&from);
	return pending.lookup(&to);
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
	end_string(record, length);
	exec_strings.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/* What was executed, and as what: strings named by the slot for the call and by the record for the process. */
static __always_inline void emit_exec_strings(struct slot *slot, u64 task, u64 bprm)
{
	u64 filename = 0, mm = 0, argv = 0, file = 0, dentry = 0, name = 0;

	slot->string_cpu = bpf_get_smp_processor_id();
	slot->string_seq = next_string_seq();
	READ(filename, bprm, LINUX_BINPRM_FILENAME);
	emit_exec_string(filename, false, STRING_FIRST_PATH, slot);
	READ(mm, task, TASK_STRUCT_MM);
	READ(argv, mm, MM_STRUCT_ARG_START);
	emit_exec_string(argv, true, STRING_COMMAND, slot);
	READ(file, mm, MM_STRUCT_EXE_FILE);
	READ(dentry, file, FILE_F_PATH_DENTRY);
	READ(name, dentry, DENTRY_D_NAME_NAME);
	emit_exec_string(name, false, STRING_EXECUTABLE, slot);
}

/* TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm) */
int on_sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	u32 old_tid = (u32)ctx->args[1];
	u32 tid = (u32)bpf_get_current_pid_tgid();
	struct task_record *record;
	struct slot *slot;

	slot = old_tid == tid ? pending.lookup(&tid) : move_slot(old_tid, tid);
	if (!slot)	/* filter: not a target */
		return 0;
	if (slot->state == SLOT_LAUNCHING)	/* the command begins, whether or not its execve is in the set */
		slot->state = SLOT_NORMAL;
	slot->has_execed = 1;
	emit_exec_strings(slot, task, ctx->args[2]);
	record = reserve_task(TASK_EXEC, task);
	if (!record)	/* dropped: counted there */
		return 0;
	record->previous_tid = old_tid;
	record->string_seq = slot->string_seq;
	record->string_cpu = slot->string_cpu;
	tasks.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}

/* TP_PROTO(struct task_struct *task, const char *comm): comm is the new name, not yet in the task. */
int on_task_rename(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	u32 tid = 0;
	struct task_record *record;
	struct slot *slot;

	READ(tid, task, TASK_STRUCT_PID);
	slot = pending.lookup(&tid);
	if (!slot || slot->state == SLOT_LAUNCHING)	/* filter: not a target */
		return 0;
	record = reserve_task(TASK_RENAME, task);
	if (!record)	/* dropped: counted there */
		return 0;
	/* Zero padded by its writer (strscpy_pad in __set_task_comm and its callers), but only up to the NUL for sure. */
	__builtin_memset(record->comm, 0, sizeof(record->comm));
	bpf_probe_read_kernel_str(record->comm, sizeof(record->comm), (void *)ctx->args[1]);
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
 * TP_PROTO(struct task_struct *task, ...)
 * A call still in flight never returns: it ends with its thread. The slot goes
 * before the tid can be used again.
 */
int on_sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u32 tid = (u32)pid_tgid;
	struct slot *slot = pending.lookup(&tid);
	struct finished call = {};
	struct task_record *record;
	u32 zero = 0, *closing;

	if (!slot)	/* filter: not a target */
		return 0;
	closing = is_closing.lookup(&zero);
	if (closing && *closing && !is_exit(slot->abi, slot->nr))	/* its return came after sys_exit was detached */
		return 0;
	if (slot->start_ns) {
		call.start_ns = slot->start_ns;
		call.duration_ns = bpf_ktime_get_boot_ns() - call.start_ns;
		call.kind = CALL_NEVER_RETURNED;
		emit_call(slot, &call, pid_tgid);
	}
	pending.delete(&tid);
	record = reserve_task(TASK_END, ctx->args[0]);
	if (!record)	/* dropped: counted there */
		return 0;
	read_end(record, ctx->args[0]);
	tasks.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}
