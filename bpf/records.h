/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Everything that crosses from the kernel to the agent, drawn once. Its Python
 * twin is otel_sysexit/kernel/records.py; tests/contract compares the two.
 *
 * Each ring carries records of one size only, so that the agent reads a batch
 * as one array. A record is a multiple of 8 bytes, has no holes, and every
 * byte of it is written: reserved ring memory is stale memory.
 */
#ifndef OTEL_SYSEXIT_RECORDS_H
#define OTEL_SYSEXIT_RECORDS_H

#include <linux/types.h>

#define RECORDS_VERSION 1

/* Longer strings are cut. One byte more is read, so that a cut one is told from one that just fits. */
#define STRING_LIMIT 255
#define STRING_READ (STRING_LIMIT + 2)
#define STRING_SIZE 264

/* The instruction set a call was made for; syscall numbers differ between them. */
enum abi {
	ABI_X86_64 = 0,
	ABI_I386 = 1,
	ABI_X32 = 2,
	ABI_AARCH64 = 3,
	ABI_ARM = 4,
	ABI_COUNT,
};

/* Numbers 0 ... NR_LIMIT - 1 of an ABI have a place in `syscall_table`. */
#define NR_LIMIT 1024

enum call_kind {
	CALL_RETURNED = 0,	/* sys_enter and sys_exit were both seen */
	CALL_NEVER_RETURNED = 1, /* the thread ended inside the call: exit, exit_group */
	CALL_NOT_EXECUTED = 2,	/* sys_exit alone: skipped by seccomp or PTRACE_SYSEMU */
};

/* Bits of call_record.flags. */
#define CALL_HAS_STRING 0x01	/* string_cpu and string_seq name its string records */
#define CALL_HAS_ARGS 0x02	/* args are as user space gave them */

/*
 * A finished call.
 *
 *   0  start_ns      8  duration_ns
 *  16  ret          24  args[6]
 *  72  tgid         76  tid
 *  80  nr           84  restarted_nr
 *  88  string_seq   92  string_cpu    94  abi    95  kind | flags << 4
 */
struct call_record {
	__u64 start_ns;		/* CLOCK_BOOTTIME at sys_enter */
	__u64 duration_ns;	/* until sys_exit, or until the thread ended */
	__s64 ret;		/* as the kernel has it: -4095 ... -1 is an errno */
	__u64 args[6];		/* raw registers; i386: the low 32 bits */
	__u32 tgid;
	__u32 tid;		/* at sys_enter: execve may end under another one */
	__s32 nr;		/* without the x32 bit */
	__s32 restarted_nr;	/* restart_syscall: what it goes on with; else -1 */
	__u32 string_seq;
	__u16 string_cpu;
	__u8 abi;
	__u8 kind_flags;	/* enum call_kind, CALL_HAS_* << 4 */
};

/* What a string record holds. */
enum string_role {
	STRING_FIRST_PATH = 0,
	STRING_SECOND_PATH = 1,
	STRING_COMMAND = 2,	/* argv[0] of an exec */
	STRING_EXECUTABLE = 3,	/* bare name of the file that became the program */
};

/*
 * A string that belongs to the call or task record with the same (cpu, seq).
 *
 *   0  seq    4  cpu    6  role    7  reserved    8  length    12  reserved2
 *  16  text[STRING_SIZE]
 */
struct string_record {
	__u32 seq;
	__u16 cpu;
	__u8 role;
	__u8 reserved;
	__s32 length;		/* bytes before the NUL; > STRING_LIMIT: cut; < 0: -errno */
	__u32 reserved2;
	char text[STRING_SIZE];	/* zero padded */
};

enum task_kind {
	TASK_PROCESS_START = 0,	/* fork, vfork, clone of a new process */
	TASK_THREAD_START = 1,
	TASK_EXEC = 2,
	TASK_RENAME = 3,
	TASK_END = 4,		/* a thread ended; is_last: its process with it */
};

/*
 * What happened to a task.
 *
 *   0  time_ns     8  start_ns
 *  16  tgid       20  tid          24  parent_tgid   28  previous_tid
 *  32  uid        36  wait_status  40  string_seq    44  string_cpu
 *  46  kind       47  is_last      48  comm[16]
 */
struct task_record {
	__u64 time_ns;		/* CLOCK_BOOTTIME */
	__u64 start_ns;		/* of the process: its leader's start_boottime */
	__u32 tgid;
	__u32 tid;
	__u32 parent_tgid;
	__u32 previous_tid;	/* start: the creating thread; exec: the tid before; else tid */
	__u32 uid;
	__s32 wait_status;	/* end: as wait(2) gives it for the process */
	__u32 string_seq;	/* exec: names the file and argv[0]; else 0 */
	__u16 string_cpu;
	__u8 kind;
	__u8 is_last;
	char comm[16];
};

/*
 * The ledger: what became of every call of a thread with a slot.
 * seen = filtered + emitted + dropped + in flight, exactly, after detaching.
 */
enum ledger {
	LEDGER_SEEN = 0,
	LEDGER_FILTERED_SUCCEEDED = 1,	/* --errors-only */
	LEDGER_FILTERED_SHORT = 2,	/* --min-duration */
	LEDGER_EMITTED = 3,
	LEDGER_DROPPED_RING_FULL = 4,
	LEDGER_DROPPED_OVERWRITTEN = 5,	/* sys_enter over a live slot: should never be */
	/* Outside the equation. */
	LEDGER_UNPAIRED_START = 6,	/* the child's return from fork, clone, vfork */
	LEDGER_UNPAIRED_ATTACH = 7,	/* the call in progress when we came */
	LEDGER_THREADS_UNFOLLOWED = 8,	/* `pending` was full when a thread was born */
	LEDGER_STRINGS_DROPPED = 9,	/* the call is there, its text is not */
	LEDGER_STRINGS_UNREADABLE = 10,	/* the memory was not there: EFAULT */
	LEDGER_TASKS_DROPPED = 11,	/* a start, exec, rename or end is unknown */
	LEDGER_COUNT,
};

/* What `pending` holds for each thread that is a target. */
enum slot_state {
	SLOT_NORMAL = 0,
	SLOT_NEWBORN = 1,	/* its next lone sys_exit is its return from fork */
	SLOT_ATTACHED = 2,	/* its next lone sys_exit is the call we came in */
	SLOT_LAUNCHING = 3,	/* ours until it calls execve: the command to run */
};

/*
 *   0  start_ns       8  nr         12  tid     16  tgid      20  interrupted_nr
 *  24  exit_status   28  string_seq 32  string_cpu   34  abi  35  state
 *  36  has_execed    37  reserved[3]            40  file      44  reserved2
 */
struct slot {
	__u64 start_ns;		/* 0: no call is in flight; 1: one that was sampled out */
	__s32 nr;
	__u32 tid;
	__u32 tgid;
	__s32 interrupted_nr;	/* the call that restart_syscall would go on with */
	__u32 exit_status;	/* argument of exit, exit_group */
	__u32 string_seq;	/* of the exec in flight */
	__u16 string_cpu;
	__u8 abi;
	__u8 state;
	__u8 has_execed;	/* the call in flight replaced the program: registers are gone */
	__u8 reserved[3];
	__u32 file;
	__u32 reserved2;
};

_Static_assert(sizeof(struct call_record) == 96, "call_record has no holes");
_Static_assert(sizeof(struct string_record) == 16 + STRING_SIZE, "string_record has no holes");
_Static_assert(sizeof(struct task_record) == 64, "task_record has no holes");
_Static_assert(sizeof(struct slot) == 48, "slot has no holes");

#endif
