/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Pairs each sys_enter with its sys_exit and hands the finished call over.
 *
 * A task has at most one call in flight, so one slot a thread is enough. A
 * thread with a slot in `pending` is a target, a thread without is not: one
 * look-up serves filter and pairing. Slots are made by the agent for threads
 * that run already, and in lifecycle.bpf.c for those born later.
 *
 * bcc knows maps and programs of one text only, so the loader joins this file
 * and lifecycle.bpf.c to one.
 *
 * Macros (each a compile-time choice; what is not asked for costs nothing):
 *   ARCH_X86_64 | ARCH_AARCH64   the machine
 *   CALLS_PAGES, STRINGS_PAGES, TASKS_PAGES   ring sizes in pages, powers of two
 *   PENDING_ENTRIES              threads that can be followed at once
 *   WAKE_EVERY                   records on a CPU between two wake-ups, a power of two
 *   SYSCALL_SET                  record calls marked in `syscall_table` only
 *   WANT_UNKNOWN                 with SYSCALL_SET: 1 if numbers outside the table count as marked
 *   ERRORS_ONLY                  record calls that failed only
 *   MIN_DURATION_NS              record calls that took at least this long only
 *   HAVE_TASK_BTF                bpf_get_current_task_btf() and bpf_task_pt_regs() exist (since 5.15)
 *   <STRUCT>_<MEMBER>            offsets from BTF: see otel_sysexit/kernel/loader.py
 */
#define BPF_LICENSE Dual BSD/GPL

#include "records.h"
#include "registers.h"

#ifndef CALLS_PAGES
#define CALLS_PAGES 4096
#endif
#ifndef STRINGS_PAGES
#define STRINGS_PAGES 1024
#endif
#ifndef TASKS_PAGES
#define TASKS_PAGES 256
#endif
#ifndef PENDING_ENTRIES
#define PENDING_ENTRIES 32768
#endif
#ifndef WAKE_EVERY
#define WAKE_EVERY 8192
#endif
#ifndef WANT_UNKNOWN
#define WANT_UNKNOWN 1
#endif

#define __always_inline inline __attribute__((always_inline))
#define unlikely(x) __builtin_expect(!!(x), 0)
#define READ(to, base, offset) \
	bpf_probe_read_kernel(&(to), sizeof(to), (void *)((u64)(base) + (offset)))

/* -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND, -ERESTART_RESTARTBLOCK: user space never sees these. */
#define is_interruption(ret) \
	((ret) == -512 || (ret) == -513 || (ret) == -514 || (ret) == -516)
#define is_error(ret) ((u64)(ret) >= (u64)-4095 && !is_interruption(ret))

/* Declares REGS, the current task's struct registers; ADDRESS is where its pt_regs are. */
#ifdef HAVE_TASK_BTF
/* The verifier knows what this pointer is: it may be read without a helper, which is several times cheaper. */
#define READ_REGISTERS(regs, address) \
	struct registers *regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf()) + REGISTERS_OFFSET
#else
#define READ_REGISTERS(regs, address) \
	struct registers copied = {}, *regs = &copied; \
	bpf_probe_read_kernel(regs, sizeof(*regs), (void *)(address) + REGISTERS_OFFSET)
#endif

BPF_HASH(pending, u32, struct slot, PENDING_ENTRIES);
BPF_RINGBUF_OUTPUT(calls, CALLS_PAGES);
BPF_RINGBUF_OUTPUT(strings, STRINGS_PAGES);
BPF_RINGBUF_OUTPUT(tasks, TASKS_PAGES);
/* Apart from the paths of calls, which may wait long: who a process is must be known at once. */
BPF_RINGBUF_OUTPUT(exec_strings, TASKS_PAGES);
BPF_PERCPU_ARRAY(ledger, u64, LEDGER_COUNT);
/* Records made on this CPU, the number of the next string. */
BPF_PERCPU_ARRAY(string_seqs, u64, 1);
/* Index abi * NR_LIMIT + nr. Bit 7: in the set. Bits 0-2: 1 + index of the first path argument; bits 3-5: of the second. */
BPF_ARRAY(syscall_table, u8, ABI_COUNT * NR_LIMIT);
/* [0]: the agent is detaching; a lone sys_exit now is one whose sys_enter came too late to be seen. */
BPF_ARRAY(is_closing, u32, 1);

#define TABLE_WANTED 0x80
#define table_first_path(entry) ((entry) & 7)
#define table_second_path(entry) (((entry) >> 3) & 7)

/* The programs run with preemption off (each CPU's counter has one writer at a time). */
static __always_inline u64 count(u32 entry)
{
	u64 *counter = ledger.lookup(&entry);

	if (!counter)	/* cannot be: entry < LEDGER_COUNT; the verifier wants it */
		return 0;
	*counter += 1;
	return *counter;
}

/* For the sched tracepoints, which may be preempted on recent kernels. */
static __always_inline void count_atomically(u32 entry)
{
	u64 *counter = ledger.lookup(&entry);

	if (counter)
		__sync_fetch_and_add(counter, 1);
}

static __always_inline u8 current_abi(void)
{
	u32 flags;

#ifdef HAVE_TASK_BTF
	flags = *(volatile u32 *)((void *)bpf_get_current_task_btf() + TASK_STRUCT_COMPAT_FLAGS);
#else
	flags = 0;
	READ(flags, bpf_get_current_task(), TASK_STRUCT_COMPAT_FLAGS);
#endif
	return flags & COMPAT_MASK ? ABI_COMPAT : ABI_NATIVE;
}

/* x32 calls are native ones with a bit in the number (arch/x86/include/asm/compat.h). */
static __always_inline void split_x32(u8 *abi, s32 *nr)
{
#ifdef X32_BIT
	if (unlikely(*nr >= X32_BIT) && *abi == ABI_NATIVE) {
		*abi = ABI_X32;
		*nr &= ~X32_BIT;
	}
#endif
}

static __always_inline u8 table_entry(u8 abi, s32 nr)
{
	u32 index = abi * NR_LIMIT + (u32)nr;
	u8 *entry;

	if (unlikely((u32)nr >= NR_LIMIT))
		return WANT_UNKNOWN ? TABLE_WANTED : 0;
	entry = syscall_table.lookup(&index);
	return entry ? *entry : 0;
}

/* Is this call in the chosen set? Always, when none was chosen. */
static __always_inline bool is_wanted(u8 abi, s32 nr)
{
#ifdef SYSCALL_SET
	return table_entry(abi, nr) & TABLE_WANTED;
#else
	return true;
#endif
}

/* Every byte is zero or set, but for text and length, which come next. */
static __always_inline void begin_string(struct string_record *record, u8 role, u32 seq, u16 cpu)
{
	__builtin_memset(record, 0, sizeof(*record));
	record->seq = seq;
	record->cpu = cpu;
	record->role = role;
}

static __always_inline void end_string(struct string_record *record, int length)
{
	if (length < 0)
		count_atomically(LEDGER_STRINGS_UNREADABLE);
	record->length = length < 0 ? length : length - 1;
}

static __always_inline void emit_path(u64 address, u8 role, u32 seq, u16 cpu)
{
	struct string_record *record = strings.ringbuf_reserve(sizeof(struct string_record));

	if (!record) {
		count_atomically(LEDGER_STRINGS_DROPPED);
		return;
	}
	begin_string(record, role, seq, cpu);
	end_string(record, bpf_probe_read_user_str(record->text, STRING_READ, (void *)address));
	strings.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

static __always_inline u32 next_string_seq(void)
{
	u32 zero = 0;
	u64 *seq = string_seqs.lookup(&zero);

	return seq ? (u32)(*seq += 1) : 0;
}

/* Path arguments, read at exit: the kernel has just read that memory, so it is there. */
static __always_inline bool emit_paths(struct call_record *record)
{
	u8 entry = table_entry(record->abi, record->nr);
	u32 first = table_first_path(entry), second = table_second_path(entry);

	if (!first)
		return false;
	record->string_cpu = bpf_get_smp_processor_id();
	record->string_seq = next_string_seq();
	/* A switch over constants: the verifier refuses a variable index into ring memory on old kernels. */
	#define PATH_ARG(n) ((n) == 1 ? record->args[0] : (n) == 2 ? record->args[1] : \
			     (n) == 3 ? record->args[2] : (n) == 4 ? record->args[3] : \
			     (n) == 5 ? record->args[4] : record->args[5])
	emit_path(PATH_ARG(first), STRING_FIRST_PATH, record->string_seq, record->string_cpu);
	if (second)
		emit_path(PATH_ARG(second), STRING_SECOND_PATH, record->string_seq, record->string_cpu);
	return true;
}

struct finished {
	u64 start_ns;
	u64 duration_ns;
	s64 ret;
	struct registers *regs;	/* kernel address; NULL: gone */
	u8 kind;
};

/*
 * The last steps for a finished call: filters by outcome, then the record.
 * Each way out is counted, so that the ledger adds up.
 */
static __always_inline void emit_call(struct slot *slot, struct finished *call, u64 pid_tgid)
{
	struct call_record *record;
	u8 flags = 0;
	u64 emitted;

#ifdef ERRORS_ONLY
	/* A call that seccomp skipped did not do what it was to do, whatever the registers say. */
	if (call->kind != CALL_NOT_EXECUTED &&
	    (call->kind == CALL_NEVER_RETURNED || !is_error(call->ret) || is_sigreturn(slot->abi, slot->nr))) {
		count(LEDGER_FILTERED_SUCCEEDED);
		return;
	}
#endif
#ifdef MIN_DURATION_NS
	if (call->duration_ns < MIN_DURATION_NS) {
		count(LEDGER_FILTERED_SHORT);
		return;
	}
#endif
	record = calls.ringbuf_reserve(sizeof(struct call_record));
	if (!record) {
		count(LEDGER_DROPPED_RING_FULL);
		return;
	}
	record->start_ns = call->start_ns;
	record->duration_ns = call->duration_ns;
	record->ret = call->ret;
	record->tgid = pid_tgid >> 32;
	record->tid = slot->tid;
	record->nr = slot->nr;
	record->abi = slot->abi;
	record->restarted_nr = is_restart(slot->abi, slot->nr) ? slot->interrupted_nr : -1;
	record->string_seq = 0;
	record->string_cpu = 0;
	if (call->regs && !slot->has_execed) {
		READ_REGISTERS(regs, call->regs);
		registers_args(regs, slot->abi, record->args);
		flags = CALL_HAS_ARGS | (emit_paths(record) ? CALL_HAS_STRING : 0);
	} else {
		__builtin_memset(record->args, 0, sizeof(record->args));
		if (call->kind == CALL_NEVER_RETURNED && is_exit(slot->abi, slot->nr)) {
			record->args[0] = slot->exit_status;
			flags = CALL_HAS_ARGS;
		}
		if (slot->has_execed) {
			record->string_seq = slot->string_seq;
			record->string_cpu = slot->string_cpu;
			flags |= CALL_HAS_STRING;
		}
	}
	record->kind_flags = call->kind | flags << 4;
	emitted = count(LEDGER_EMITTED);
	calls.ringbuf_submit(record, emitted & (WAKE_EVERY - 1) ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP);
}

/*
 * A sys_exit whose sys_enter was not seen. Old data is never used for it: it is
 * the child's return from fork, the call in progress when we attached, or a
 * call that seccomp or PTRACE_SYSEMU skipped before sys_enter.
 */
static __always_inline void handle_lone_exit(struct bpf_raw_tracepoint_args *ctx, struct slot *slot, u64 pid_tgid)
{
	READ_REGISTERS(regs, ctx->args[0]);
	struct finished call = {};
	u32 zero = 0, *closing;
	u8 state = slot->state;

	if (state == SLOT_LAUNCHING)	/* filter: our own code before the command's execve */
		return;
	slot->nr = registers_nr(regs);
	slot->abi = current_abi();
	split_x32(&slot->abi, &slot->nr);
	if (unlikely((s64)ctx->args[1] == -516))	/* of a call that is not in the set */
		slot->interrupted_nr = slot->nr;
	if (state == SLOT_NEWBORN) {
		slot->state = SLOT_NORMAL;
		count(LEDGER_UNPAIRED_START);
		return;
	}
#ifdef SYSCALL_SET
	/* filter: not in the set. rt_sigreturn leaves -1 behind where its number was. */
	if (slot->nr == -1 || !is_wanted(slot->abi, slot->nr))
		return;
#endif
	if (state == SLOT_ATTACHED) {
		slot->state = SLOT_NORMAL;
		count(LEDGER_UNPAIRED_ATTACH);
		return;
	}
	closing = is_closing.lookup(&zero);
	if (closing && *closing)	/* filter: sys_enter is detached already */
		return;
	count(LEDGER_SEEN);
	slot->tid = (u32)pid_tgid;
	slot->has_execed = 0;
	call.start_ns = bpf_ktime_get_boot_ns();
	call.ret = ctx->args[1];
	call.regs = (struct registers *)ctx->args[0];
	call.kind = CALL_NOT_EXECUTED;
	emit_call(slot, &call, pid_tgid);
}

/* TP_PROTO(struct pt_regs *regs, long ret) */
int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u32 tid = (u32)pid_tgid;
	struct slot *slot = pending.lookup(&tid);
	struct finished call = {};

	if (!slot)	/* filter: not a target */
		return 0;
	if (unlikely(!slot->start_ns)) {
		handle_lone_exit(ctx, slot, pid_tgid);
		return 0;
	}
	call.start_ns = slot->start_ns;
	call.duration_ns = bpf_ktime_get_boot_ns() - call.start_ns;
	call.ret = ctx->args[1];
	call.regs = (struct registers *)ctx->args[0];
	call.kind = CALL_RETURNED;
	slot->start_ns = 0;
	/* A restart_syscall that is interrupted itself goes on with the same call. */
	if (unlikely(call.ret == -516) && !is_restart(slot->abi, slot->nr))
		slot->interrupted_nr = slot->nr;
	emit_call(slot, &call, pid_tgid);
	return 0;
}

/* TP_PROTO(struct pt_regs *regs, long id) */
int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u64 pid_tgid = bpf_get_current_pid_tgid();
	u32 tid = (u32)pid_tgid;
	s32 nr = (s32)ctx->args[1];	/* orig_ax may carry more bits, or be changed by a tracer */
	u8 abi = current_abi();
	struct slot *slot;

	split_x32(&abi, &nr);
	if (!is_wanted(abi, nr))	/* filter: not in the set */
		return 0;
	slot = pending.lookup(&tid);
	if (!slot)	/* filter: not a target */
		return 0;
	if (unlikely(slot->state != SLOT_NORMAL)) {
		if (slot->state == SLOT_LAUNCHING && nr != NR_EXECVE)	/* filter: our own code still */
			return 0;
		slot->state = SLOT_NORMAL;
	}
	if (unlikely(slot->start_ns))
		count(LEDGER_DROPPED_OVERWRITTEN);
	if (unlikely(is_exit(abi, nr))) {
		READ_REGISTERS(regs, ctx->args[0]);
#if defined(ARCH_X86_64)
		slot->exit_status = abi == ABI_I386 ? regs->bx : regs->di;
#else
		slot->exit_status = regs->regs[0];
#endif
	}
	slot->nr = nr;
	slot->abi = abi;
	slot->tid = tid;
	slot->tgid = pid_tgid >> 32;
	slot->has_execed = 0;
	count(LEDGER_SEEN);
	slot->start_ns = bpf_ktime_get_boot_ns();
	return 0;
}
