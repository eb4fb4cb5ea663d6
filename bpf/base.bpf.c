/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What all programs share: macros, maps, counters.
 *
 * bcc knows maps and programs of one text only, so the loader joins this file
 * and those after it to one: base, slots, strings, files, spans, selection,
 * sampling, calls, lifecycle.
 *
 * Macros (each a compile-time choice; what is not asked for costs nothing):
 *   ARCH_X86_64 | ARCH_AARCH64   the machine
 *   WAKE_EVERY                   records on a CPU between two wake-ups, a power of two
 *   CPUS_A_RING                  how many CPUs write to each of several rings of calls, 8 at most
 *   STRING_LIMIT                 bytes of a string that are kept (records.h)
 *   ARGS                         0: none, 1: numbers, 2: paths, descriptors and addresses, too
 *   COMMAND_ARGS                 argv of each exec
 *   SYSCALL_SET                  record calls marked in `syscall_table` only
 *   WANT_UNKNOWN                 with SYSCALL_SET: 1 if numbers outside the table count as marked
 *   ERRORS_ONLY                  record calls that failed only
 *   ERRNO_SET                    record calls whose errno (0: none) is marked in `errnos` only
 *   MIN_DURATION_NS              record calls that took at least this long only
 *   MIN_DURATION_BY_CALL         ... with exceptions in `min_durations`
 *   SAMPLE_THRESHOLD             keep a random part; 2^32 - 1 at most (records.h: call_record.threshold)
 *   MAX_RATE                     ... or as `rate` says
 *   KEEP_ERRORS                  ... but always those whose errno is marked in `errnos`
 *   KEEP_SLOW_NS                 ... and those that took at least this long
 *   KEEP_SLOW_BY_CALL            ... with exceptions in `keep_slow`
 *   REPORT_STUCK                 calls in flight are looked at, whatever sampling says
 *   PENDING_PLACES               see slots.bpf.c
 *   CURRENT_SPANS                say which span of the application each call was made in; see spans.bpf.c
 *   SELECT_*, EXCLUDE_*, EXE_GLOBS, EXE_GLOBS_EXCLUDED, NO_FOLLOW   see selection.bpf.c
 *   HAVE_TASK_BTF                bpf_get_current_task_btf() and bpf_task_pt_regs() exist (since 5.15)
 *   CGROUPS                      say in which cgroup a process is, of the hierarchy of CGROUP_SUBSYSTEM
 *   PERF_EVENTS                  perf calls the programs of calls, execs and ends; needs HAVE_TASK_BTF
 *   <STRUCT>_<MEMBER>            offsets from BTF: see otel_sysexit/kernel/macros.py
 */
#define BPF_LICENSE Dual BSD/GPL

#include "records.h"
#include "registers.h"

#ifndef WAKE_EVERY
#define WAKE_EVERY 8192
#endif
#ifndef ARGS
#define ARGS 2
#endif
#ifndef WANT_UNKNOWN
#define WANT_UNKNOWN 1
#endif

#define ARGS_NUMBERS 1
#define ARGS_DECODED 2

/* What a program returns. perf shows an event to its other users only if no program returned 0. */
#ifdef PERF_EVENTS
#define DONE 1
#else
#define DONE 0
#endif

#define __always_inline inline __attribute__((always_inline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define READ(to, base, offset) \
	bpf_probe_read_kernel(&(to), sizeof(to), (void *)((u64)(base) + (offset)))

/* -ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND, -ERESTART_RESTARTBLOCK: user space never sees these. */
#define is_interruption(ret) \
	((ret) == -512 || (ret) == -513 || (ret) == -514 || (ret) == -516)
#define is_error(ret) ((u64)(ret) >= (u64)-4095 && !is_interruption(ret))

/*
 * Who makes the call: a task_struct. Where the verifier knows what the pointer is,
 * members are read without a helper, and one helper less is a tenth of all that a recorded call costs.
 */
#ifdef HAVE_TASK_BTF
#define current_task() ((void *)bpf_get_current_task_btf())
#define task_member(type, task, offset) (*(volatile type *)((task) + (offset)))
/* Declares REGS, the task's struct registers; ADDRESS is where its pt_regs are. */
#define READ_REGISTERS(regs, task, address) \
	struct registers *regs = (void *)bpf_task_pt_regs(task) + REGISTERS_OFFSET
#else
#define current_task() ((void *)bpf_get_current_task())
#define task_member(type, task, offset) \
	({ type member = 0; READ(member, task, offset); member; })
#define READ_REGISTERS(regs, task, address) \
	struct registers copied = {}, *regs = &copied; \
	bpf_probe_read_kernel(regs, sizeof(*regs), (void *)(address) + REGISTERS_OFFSET)
#endif

/* Where size is of no matter to the programs, the loader chooses it when it creates a map (otel_sysexit/kernel/request.py). */
#define SIZE_OF_LOADER 1

BPF_RINGBUF_OUTPUT(calls, SIZE_OF_LOADER);
#ifdef CPUS_A_RING
#define CALLS_RINGS_MAX 8
/*
 * All rings of calls; the loader makes the others. A map of them, since for a choice among maps
 * the verifier follows a program once for each until Linux 6.2, and that is too much for it.
 */
BPF_ARRAY_OF_MAPS(calls_rings, "calls", CALLS_RINGS_MAX);
#endif
BPF_RINGBUF_OUTPUT(strings, SIZE_OF_LOADER);
BPF_RINGBUF_OUTPUT(tasks, SIZE_OF_LOADER);
/* Apart from the strings of calls, which may wait long: who a process is must be known at once. */
BPF_RINGBUF_OUTPUT(exec_strings, SIZE_OF_LOADER);
/* Apart, too: a file is told once, and then meant by many calls. */
BPF_RINGBUF_OUTPUT(files, SIZE_OF_LOADER);
BPF_PERCPU_ARRAY(ledger, u64, LEDGER_COUNT);
/* Index abi * NR_LIMIT + nr: ENTRY_*. */
BPF_ARRAY(syscall_table, u32, ABI_COUNT * NR_LIMIT);
/* 1: in the set in no ABI, and neither exec nor fork. */
BPF_ARRAY(unwanted_numbers, u8, NR_LIMIT);
/* [0]: the agent is detaching; a lone sys_exit now is one whose sys_enter came too late to be seen. */
BPF_ARRAY(is_closing, u32, 1);

/* The programs on sys_enter and sys_exit run with preemption off (PERF_EVENTS sees to it): a CPU's counter has one writer at a time. */
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

static __always_inline u32 tid_of(void *task)
{
#ifdef HAVE_TASK_BTF
	return task_member(u32, task, TASK_STRUCT_PID);
#else
	return (u32)bpf_get_current_pid_tgid();
#endif
}

static __always_inline u32 tgid_of(void *task)
{
#ifdef HAVE_TASK_BTF
	return task_member(u32, task, TASK_STRUCT_TGID);
#else
	return bpf_get_current_pid_tgid() >> 32;
#endif
}

/* Of the call that the task is in. */
static __always_inline u8 abi_of(void *task)
{
	return task_member(u32, task, TASK_STRUCT_COMPAT_FLAGS) & COMPAT_MASK ? ABI_COMPAT : ABI_NATIVE;
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

static __always_inline u32 table_entry(u8 abi, s32 nr)
{
	u32 index = abi * NR_LIMIT + (u32)nr;
	u32 *entry;

	if (unlikely((u32)nr >= NR_LIMIT))
		return WANT_UNKNOWN ? ENTRY_IS_WANTED : 0;
	entry = syscall_table.lookup(&index);
	return entry ? *entry : 0;
}

/* By its number alone: is it in the set in none of the ABIs? Most calls that are not of interest end here. */
static __always_inline bool is_unwanted_number(s32 nr)
{
	u32 index = nr;
	u8 *entry = (u32)nr < NR_LIMIT ? unwanted_numbers.lookup(&index) : NULL;

	return entry && *entry;
}

/* Is this call in the chosen set? Always, when none was chosen. */
static __always_inline bool is_wanted(u8 abi, s32 nr)
{
#ifdef SYSCALL_SET
	return table_entry(abi, nr) & ENTRY_IS_WANTED;
#else
	return true;
#endif
}
