/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Pairs each sys_enter with its sys_exit and hands the finished call over.
 *
 * A task has at most one call in flight, so one slot a thread is enough. A
 * thread with a slot is a target, a thread without is not: one look-up serves
 * filter and pairing. Slots are made by the agent for threads
 * that run already, and in lifecycle.bpf.c for those born later.
 *
 * Order of refusal: the set of calls, the slot, at exit the outcome (errors,
 * errno, duration), then sampling. Each way out is a documented filter or is counted.
 */

/*
 * What the programs are given: the raw tracepoint's arguments, or where these programs could be preempted
 * (Linux 7; see probes.py), the events of perf, which calls them with preemption off.
 */
#ifdef PERF_EVENTS
struct enter_context {	/* struct trace_event_raw_sys_enter */
	u64 common;
	s64 nr;
	u64 args[6];
};
struct exit_context {	/* struct trace_event_raw_sys_exit */
	u64 common;
	s64 nr;
	s64 ret;
};
#define context_nr(ctx) ((ctx)->nr)
#define context_ret(ctx) ((ctx)->ret)
#define context_registers(ctx, task) ((u64)bpf_task_pt_regs(task))
#else
#define enter_context bpf_raw_tracepoint_args	/* TP_PROTO(struct pt_regs *regs, long id) */
#define exit_context bpf_raw_tracepoint_args	/* TP_PROTO(struct pt_regs *regs, long ret) */
#define context_nr(ctx) ((s64)(ctx)->args[1])
#define context_ret(ctx) ((s64)(ctx)->args[1])
#define context_registers(ctx, task) ((ctx)->args[0])
#endif

struct finished {
	u64 start_ns;
	u64 duration_ns;
	s64 ret;
	void *task;
	struct registers *regs;	/* kernel address; NULL: gone */
	u8 kind;
};

/* A call that never returns ends in a sched tracepoint. */
static __always_inline u64 count_call(struct finished *call, u32 entry)
{
	if (call->kind != CALL_NEVER_RETURNED)
		return count(entry);
	count_atomically(entry);
	return 1;
}

/* Does `ret` say what became of the call? */
static __always_inline bool has_result(struct slot *slot, struct finished *call)
{
	return call->kind != CALL_NEVER_RETURNED && !is_sigreturn(slot->abi, slot->nr);
}

/* Filters by outcome. */
static __always_inline bool is_filtered(struct slot *slot, struct finished *call)
{
#ifdef ERRORS_ONLY
	/* A call that seccomp skipped did not do what it was to do, whatever the registers say. */
	if (call->kind != CALL_NOT_EXECUTED && !(has_result(slot, call) && is_error(call->ret))) {
		count_call(call, LEDGER_FILTERED_SUCCEEDED);
		return true;
	}
#endif
#ifdef ERRNO_SET
	if (!has_errno(has_result(slot, call) ? call->ret : 0, ERRNO_IS_WANTED)) {
		count_call(call, LEDGER_FILTERED_ERRNO);
		return true;
	}
#endif
#ifdef MIN_DURATION_NS
	u64 least_ns = MIN_DURATION_NS;
#ifdef MIN_DURATION_BY_CALL
	u32 index = slot->abi * NR_LIMIT + (u32)slot->nr;
	u64 *own_ns = (u32)slot->nr < NR_LIMIT ? min_durations.lookup(&index) : NULL;

	if (own_ns)
		least_ns = *own_ns;
#endif
	if (call->duration_ns < least_ns) {
		count_call(call, LEDGER_FILTERED_SHORT);
		return true;
	}
#endif
	return false;
}

/* The threshold to write in the record; IS_REFUSED: the call is sampled out (counted). */
static __always_inline s64 sample_finished(struct slot *slot, struct finished *call)
{
#ifdef SAMPLE
	s64 threshold;

#ifdef SAMPLE_AT_ENTER
	if (call->kind != CALL_NOT_EXECUTED)	/* that one had no sys_enter */
		return slot->threshold;
#else
	if (is_kept(slot, call->ret, has_result(slot, call), call->duration_ns) && take_kept())
		return 0;
#endif
	threshold = sample();
	if (threshold == IS_REFUSED)
		count_call(call, LEDGER_SAMPLED_OUT);
	return threshold;
#else
	return 0;
#endif
}

/* Arguments, and what they mean, as far as wanted and known; returns CALL_HAS_*. */
static __always_inline u8 fill_arguments(struct call_record *record, struct slot *slot, struct finished *call)
{
	u8 flags = 0;

#if ARGS >= ARGS_NUMBERS
	if (call->regs && !slot->has_execed) {
		READ_REGISTERS(regs, call->task, call->regs);
		registers_args(regs, slot->abi, record->args);
		flags = CALL_HAS_ARGS;
	} else {
		__builtin_memset(record->args, 0, sizeof(record->args));
		if (call->kind == CALL_NEVER_RETURNED && is_exit(slot->abi, slot->nr)) {
			record->args[0] = slot->exit_status;
			flags = CALL_HAS_ARGS;
		}
	}
#else
	__builtin_memset(record->args, 0, sizeof(record->args));
#endif
#if ARGS >= ARGS_DECODED
	if (call->regs && !slot->has_execed) {
		u32 entry = table_entry(slot->abi, slot->nr), file;

		if (entry & ENTRY_HAS_MEANING) {
			if (emit_strings(record, entry, slot->address_room))
				flags |= CALL_HAS_STRING;
			file = ENTRY_ARGUMENT(entry, ENTRY_FIRST_FILE);
			if (is_close(slot->abi, slot->nr))
				record->files[0] = slot->file;
			else if (file)
				record->files[0] = file_number((s32)argument(record->args, file),
							       call->start_ns + call->duration_ns);
			file = ENTRY_ARGUMENT(entry, ENTRY_SECOND_FILE);
			if (file)
				record->files[1] = file_number((s32)argument(record->args, file),
							       call->start_ns + call->duration_ns);
		}
	}
	if (slot->has_execed) {
		record->string_seq = slot->string_seq;
		record->string_cpu = slot->string_cpu;
		flags |= CALL_HAS_STRING;
	}
#endif
	return flags;
}

/*
 * Room in the ring of this CPU's group: a ring's lock is taken for each record,
 * by all that write to it. The CPU stays the same until the end of the program.
 */
static __always_inline struct call_record *reserve_record(void)
{
#ifdef CPUS_A_RING
	u32 group = bpf_get_smp_processor_id() / CPUS_A_RING % CALLS_RINGS_MAX;
	void *ring = calls_rings.lookup(&group);

	return ring ? bpf_ringbuf_reserve(ring, sizeof(struct call_record), 0) : NULL;	/* it is there; the verifier wants it */
#else
	return calls.ringbuf_reserve(sizeof(struct call_record));
#endif
}

/*
 * The last steps for a finished call: filters by outcome, sampling, the record.
 * Each way out is counted, so that the ledger adds up.
 */
static __always_inline void emit_call(struct slot *slot, struct finished *call)
{
	struct call_record *record;
	s64 threshold;
	u64 emitted;

	if (is_filtered(slot, call))	/* filter: counted there */
		return;
	threshold = sample_finished(slot, call);
	if (threshold == IS_REFUSED)	/* sampled out: counted there */
		return;
	record = reserve_record();
	if (!record) {
		count_call(call, LEDGER_DROPPED_RING_FULL);
		return;
	}
	record->start_ns = call->start_ns;
	record->duration_ns = call->duration_ns;
	record->ret = call->ret;
	record->tgid = slot->tgid;
	record->tid = slot->tid;
	record->nr = slot->nr;
	record->abi = slot->abi;
	record->restarted_nr = is_restart(slot->abi, slot->nr) ? slot->interrupted_nr : -1;
	record->string_seq = 0;
	record->string_cpu = 0;
	record->files[0] = 0;
	record->files[1] = 0;
	record->threshold = threshold;
	record->reserved = 0;
#ifdef CURRENT_SPANS
	record->span = slot->span;
#endif
	record->kind_flags = call->kind | fill_arguments(record, slot, call) << 4;
	emitted = count_call(call, LEDGER_EMITTED);
	calls.ringbuf_submit(record, emitted & (WAKE_EVERY - 1) ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP);
}

/*
 * A sys_exit whose sys_enter was not seen. Old data is never used for it: it is
 * the child's return from fork, the call in progress when we attached, or a
 * call that seccomp or PTRACE_SYSEMU skipped before sys_enter.
 */
static __always_inline void handle_lone_exit(struct exit_context *ctx, struct slot *slot, void *task)
{
	struct finished call = {};
	u32 zero = 0, *closing;
	u8 state = slot->state;

	if (state == SLOT_LAUNCHING)	/* filter: our own code before the command's execve */
		return;
	if (state == SLOT_EXCLUDED) {	/* filter: left out */
		slot->has_execed = 0;
		return;
	}
	READ(slot->nr, context_registers(ctx, task), REGISTERS_NR);
	slot->abi = abi_of(task);
	split_x32(&slot->abi, &slot->nr);
	if (unlikely(context_ret(ctx) == -516))	/* of a call that is not in the set */
		slot->interrupted_nr = slot->nr;
	if (state == SLOT_NEWBORN) {
		slot->state = SLOT_NORMAL;
		count(LEDGER_UNPAIRED_START);
		return;
	}
	slot->state = SLOT_NORMAL;
	if (slot->has_execed) {	/* its sys_enter was not in the set; its number may be another call's by now */
		slot->has_execed = 0;
		if (state == SLOT_ATTACHED)
			count(LEDGER_UNPAIRED_ATTACH);
		return;
	}
#ifdef SYSCALL_SET
	/* filter: not in the set. rt_sigreturn leaves -1 behind where its number was. */
	if (slot->nr == -1 || !is_wanted(slot->abi, slot->nr))
		return;
#endif
	if (state == SLOT_ATTACHED) {
		count(LEDGER_UNPAIRED_ATTACH);
		return;
	}
	closing = is_closing.lookup(&zero);
	if (closing && *closing)	/* filter: sys_enter is detached already */
		return;
	count(LEDGER_SEEN);
	slot->tid = tid_of(task);
	slot->tgid = tgid_of(task);
	slot->file = 0;
	slot->address_room = 0;
	note_span(slot);
	call.start_ns = bpf_ktime_get_boot_ns();
	call.ret = context_ret(ctx);
	call.task = task;
	call.regs = (struct registers *)context_registers(ctx, task);
	call.kind = CALL_NOT_EXECUTED;
	emit_call(slot, &call);
}

/* Before the slot is looked up: nothing of such a call is of interest. */
static __always_inline bool is_outside_set(struct exit_context *ctx)
{
#ifdef SYSCALL_SET
	s32 nr = -1;

	READ(nr, context_registers(ctx, current_task()), REGISTERS_NR);
	/* rt_sigreturn left -1 behind; what restart_syscall goes on with is remembered whatever it is. */
	return is_unwanted_number(nr) && context_ret(ctx) != -516;
#else
	return false;
#endif
}

int on_sys_exit(struct exit_context *ctx)
{
	struct finished call = {};
	struct slot *slot;
	void *task;
	u32 tid;

	if (is_outside_set(ctx))	/* filter: not in the set */
		return DONE;
	task = current_task();
	tid = tid_of(task);
	slot = find_slot(tid);
	if (!slot)	/* filter: not a target */
		return DONE;
	if (unlikely(!slot->start_ns)) {
		handle_lone_exit(ctx, slot, task);
		return DONE;
	}
	call.start_ns = slot->start_ns;
	call.ret = context_ret(ctx);
	slot->start_ns = 0;
	/* A restart_syscall that is interrupted itself goes on with the same call. */
	if (unlikely(call.ret == -516) && !is_restart(slot->abi, slot->nr))
		slot->interrupted_nr = slot->nr;
#ifdef SAMPLE_AT_ENTER
	if (call.start_ns == SAMPLED_OUT_AT_ENTER) {	/* sampled out: counted at sys_enter */
		slot->has_execed = 0;
		return DONE;
	}
#endif
	call.duration_ns = bpf_ktime_get_boot_ns() - call.start_ns;
	call.task = task;
	call.regs = (struct registers *)context_registers(ctx, task);
	call.kind = CALL_RETURNED;
	emit_call(slot, &call);
	slot->has_execed = 0;
	return DONE;
}

/* With --all, a thread that ran before us is met here. */
static __always_inline struct slot *meet(u32 tid, u32 tgid)
{
#ifdef SELECT_ALL
	struct candidate who = {
		.task = bpf_get_current_task(), .tgid = tgid, .tid = tid,
	};
	struct slot *slot;

	if (is_agent(tgid))
		return NULL;
	who.comm = who.task + TASK_STRUCT_COMM;
	slot = add_slot(tid, tgid, is_excluded(&who) ? SLOT_EXCLUDED : SLOT_NORMAL);
	if (!slot) {
		count(LEDGER_SEEN);
		count(LEDGER_DROPPED_PENDING_FULL);
	}
	return slot;
#else
	return NULL;
#endif
}

/* What nobody can tell at sys_exit any more. */
static __always_inline void note_arguments(struct enter_context *ctx, struct slot *slot, void *task)
{
	if (unlikely(is_exit(slot->abi, slot->nr))) {
		READ_REGISTERS(regs, task, context_registers(ctx, task));
		slot->exit_status = registers_first_arg(regs, slot->abi);
	}
#if ARGS >= ARGS_DECODED
	u32 entry = table_entry(slot->abi, slot->nr);

	if (unlikely(entry & ENTRY_IS_ADDRESS_OUT)) {
		READ_REGISTERS(regs, task, context_registers(ctx, task));
		slot->address_room = address_room(entry, regs, slot->abi);
	}
	if (unlikely(is_close(slot->abi, slot->nr))) {
		READ_REGISTERS(regs, task, context_registers(ctx, task));
		slot->file = file_number((s32)registers_first_arg(regs, slot->abi), bpf_ktime_get_boot_ns());
	}
#endif
}

int on_sys_enter(struct enter_context *ctx)
{
	s32 nr = (s32)context_nr(ctx);	/* orig_ax may carry more bits, or be changed by a tracer */
	struct slot *slot;
	s64 threshold;
	void *task;
	u32 tid;
	u8 abi;

#ifdef SYSCALL_SET
	if (is_unwanted_number(nr))	/* filter: not in the set */
		return DONE;
#endif
	task = current_task();
	tid = tid_of(task);
	slot = settle_slot(tid);
#ifndef SELECT_ALL
	if (!slot)	/* filter: not a target */
		return DONE;
#endif
	abi = abi_of(task);
	split_x32(&abi, &nr);
	if (!is_wanted(abi, nr))	/* filter: not in the set of this ABI */
		return DONE;
	if (!slot) {
		slot = meet(tid, tgid_of(task));
		if (!slot)	/* filter: ourselves; or dropped: counted there */
			return DONE;
	}
	if (unlikely(slot->state != SLOT_NORMAL)) {
		if (slot->state == SLOT_EXCLUDED)	/* filter: left out */
			return DONE;
		if (slot->state == SLOT_LAUNCHING && nr != NR_EXECVE)	/* filter: our own code still */
			return DONE;
		slot->state = SLOT_NORMAL;
	}
	if (unlikely(slot->start_ns > SAMPLED_OUT_AT_ENTER))
		count(LEDGER_DROPPED_OVERWRITTEN);
	slot->nr = nr;
	slot->abi = abi;
	slot->tid = tid;
	slot->tgid = tgid_of(task);
	count(LEDGER_SEEN);
#ifdef SAMPLE_AT_ENTER
	threshold = sample();
	if (threshold == IS_REFUSED) {
		slot->start_ns = SAMPLED_OUT_AT_ENTER;
		count(LEDGER_SAMPLED_OUT);
		return DONE;
	}
	slot->threshold = threshold;
#endif
	note_arguments(ctx, slot, task);
	note_span(slot);
	slot->start_ns = bpf_ktime_get_boot_ns();
	return DONE;
}
