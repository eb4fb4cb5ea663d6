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

/*
 * Longer strings are cut; set at compile time (--string-limit). One byte more is
 * read, so that a cut one is told from one that just fits.
 */
#ifndef STRING_LIMIT
#define STRING_LIMIT 256
#endif
#define STRING_READ (STRING_LIMIT + 2)
#define STRING_SIZE ((STRING_READ + 7) / 8 * 8)

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

/*
 * An entry of `syscall_table`, u32: what to do with a call of that number.
 *
 *  bits  0-2   1 + index of the first path argument; 0: none
 *        3-5   of the second
 *        6-8   1 + index of the first descriptor argument
 *        9-11  of the second
 *       12-14  1 + index of an argument that points to a struct sockaddr
 *       15-17  1 + index of the argument with its length
 *       18     ... which is pointed to: the kernel wrote address and length
 *       30     an exec or a fork: sys_exit looks at the slot whether it is in the set or not
 *       31     in the chosen set
 */
#define ENTRY_ARGUMENT(entry, shift) (((entry) >> (shift)) & 7)
#define ENTRY_FIRST_PATH 0
#define ENTRY_SECOND_PATH 3
#define ENTRY_FIRST_FILE 6
#define ENTRY_SECOND_FILE 9
#define ENTRY_ADDRESS 12
#define ENTRY_ADDRESS_LENGTH 15
#define ENTRY_IS_ADDRESS_OUT (1u << 18)
#define ENTRY_HAS_MEANING ((1u << 18) - 1)
#define ENTRY_IS_BIRTH (1u << 30)
#define ENTRY_IS_WANTED (1u << 31)

enum call_kind {
	CALL_RETURNED = 0,	/* sys_enter and sys_exit were both seen */
	CALL_NEVER_RETURNED = 1, /* the thread ended inside the call: exit, exit_group */
	CALL_NOT_EXECUTED = 2,	/* sys_exit alone: skipped by seccomp or PTRACE_SYSEMU */
};

/* Bits of call_record.kind_flags, above the kind's. */
#define CALL_HAS_STRING 0x01	/* string_cpu and string_seq name its string records */
#define CALL_HAS_ARGS 0x02	/* args are as user space gave them */

/*
 * A span of the application, as OpenTelemetry eBPF Instrumentation tells of it
 * (spans.bpf.c): bytes in the order in which W3C writes them; zeros: none.
 *
 *   0  trace_id[2]  16  span_id
 */
struct span_context {
	__u64 trace_id[2];
	__u64 span_id;
};

/*
 * A finished call.
 *
 *   0  start_ns      8  duration_ns
 *  16  ret          24  args[6]
 *  72  tgid         76  tid
 *  80  nr           84  restarted_nr
 *  88  string_seq   92  string_cpu    94  abi    95  kind | flags << 4
 *  96  files[2]    104  threshold    108  reserved
 * 112  span        with CURRENT_SPANS only
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
	__u32 files[2];		/* numbers of what descriptor arguments were; 0: unknown, none */
	__u32 threshold;	/* upper half of OpenTelemetry's 56-bit T, T >> 24; 0: all are here */
	__u32 reserved;
#ifdef CURRENT_SPANS
	struct span_context span;	/* that the thread was in at sys_enter */
#endif
};

/* What a string record holds. */
enum string_role {
	STRING_FIRST_PATH = 0,
	STRING_SECOND_PATH = 1,
	STRING_COMMAND = 2,	/* argv[0] of an exec */
	STRING_EXECUTABLE = 3,	/* the file that became the program: its path, or its bare name */
	STRING_ARGV = 4,	/* of an exec: arguments, each ended by a NUL */
	STRING_ADDRESS = 5,	/* a struct sockaddr, as user space has it */
	STRING_FILE = 6,	/* what a descriptor is; in a ring of its own */
};

/* A string's `cpu`, from here on: not of a CPU, but which of a thread's execs it tells of; `seq` is the tid then. */
#define EXEC_STRINGS 0x8000

/*
 * A string that belongs to the call or task record with the same (cpu, seq); a
 * STRING_FILE belongs to every call that has its seq in `files`.
 *
 *   0  ino     8  seq    12  mode    16  length    20  cpu    22  role    23  reserved
 *  24  text[STRING_SIZE]
 */
struct string_record {
	__u64 ino;		/* STRING_FILE: the inode's number; else 0 */
	__u32 seq;
	__u32 mode;		/* STRING_FILE: the inode's type and permissions; else 0 */
	__s32 length;		/* bytes, without a text's NUL; > STRING_LIMIT: cut; < 0: -errno */
	__u16 cpu;
	__u8 role;
	__u8 reserved;
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
 *  64  cgroup     72  euid         76  vpid
 *  80  gid        84  egid
 */
struct task_record {
	__u64 time_ns;		/* CLOCK_BOOTTIME */
	__u64 start_ns;		/* of the process: its leader's start_boottime */
	__u32 tgid;
	__u32 tid;
	__u32 parent_tgid;
	__u32 previous_tid;	/* start: the creating thread; exec: the tid before; else tid */
	__u32 uid;		/* real user id */
	__s32 wait_status;	/* end: as wait(2) gives it for the process */
	__u32 string_seq;	/* exec: names the file and argv[0]; else 0 */
	__u16 string_cpu;
	__u8 kind;
	__u8 is_last;
	char comm[16];
	__u64 cgroup;		/* inode number of its cgroup's directory; 0: not asked for */
	__u32 euid;		/* effective user id */
	__u32 vpid;		/* of the process, in its own pid namespace */
	__u32 gid;		/* real group id */
	__u32 egid;		/* effective group id */
};

/*
 * The ledger: what became of every call of a thread with a slot.
 * seen = filtered + sampled out + emitted + dropped + in flight, exactly, after detaching.
 */
enum ledger {
	LEDGER_SEEN = 0,
	LEDGER_FILTERED_SUCCEEDED = 1,	/* --errors-only */
	LEDGER_FILTERED_SHORT = 2,	/* --min-duration */
	LEDGER_FILTERED_ERRNO = 3,	/* --errno */
	LEDGER_FILTERED_EXCLUDED = 4,	/* an exec or a rename by which its thread stopped being a target */
	LEDGER_SAMPLED_OUT = 5,		/* --sample, --max-rate */
	LEDGER_EMITTED = 6,
	LEDGER_DROPPED_RING_FULL = 7,
	LEDGER_DROPPED_PENDING_FULL = 8, /* --all: there was no slot for the thread */
	LEDGER_DROPPED_OVERWRITTEN = 9,	/* the end was not seen: the slot was used again, or taken away */
	/* Outside the equation. */
	LEDGER_UNPAIRED_START = 10,	/* the child's return from fork, clone, vfork */
	LEDGER_UNPAIRED_ATTACH = 11,	/* the call in progress when we came */
	LEDGER_THREADS_UNFOLLOWED = 12,	/* there was no slot for a thread that was born, no room to look at an exec */
	LEDGER_STRINGS_DROPPED = 13,	/* the call is there, its text is not */
	LEDGER_STRINGS_UNREADABLE = 14,	/* the memory was not there: EFAULT */
	LEDGER_TASKS_DROPPED = 15,	/* a start, exec, rename or end is unknown */
	LEDGER_KEEP_REFUSED = 16,	/* --keep-…, but --max-rate was used up: sampled like the others */
	LEDGER_COUNT,
};

/* What a thread with a slot is. */
enum slot_state {
	SLOT_NORMAL = 0,
	SLOT_NEWBORN = 1,	/* its next lone sys_exit is its return from fork */
	SLOT_ATTACHED = 2,	/* its next lone sys_exit is the call we came in */
	SLOT_LAUNCHING = 3,	/* ours until it calls execve: the command to run */
	SLOT_EXCLUDED = 4,	/* left out (--not-…), but what it starts may be a target */
};

/* A slot.start_ns that is no time: a call is in flight, but was sampled out. */
#define SAMPLED_OUT_AT_ENTER 1

/*
 *   0  start_ns    8  nr        12  tid    16  tgid    20  interrupted_nr
 *  24  exit_status 28  string_seq   32  string_cpu     34  abi    35  state
 *  36  has_execed  37  was_target   38  address_room   39  reserved  40  file      44  threshold
 *  48  span        with CURRENT_SPANS only
 */
struct slot {
	__u64 start_ns;		/* 0: no call is in flight */
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
	__u8 was_target;	/* the agent knows its process, and must hear of its end */
	__u8 address_room;	/* of accept and its like: bytes of an address that the program has room for */
	__u8 reserved;
	__u32 file;		/* of close: what the descriptor is, which nobody knows at exit */
	__u32 threshold;	/* at which the call in flight was sampled, as call_record.threshold */
#ifdef CURRENT_SPANS
	struct span_context span;	/* that the call in flight was made in */
#endif
};

/*
 * An element of `pending`: the slot of the thread whose id's lower bits name this
 * place, and what there is to say of others with the same bits.
 *
 *   0  slot       48  owner      52  others     56  has_attached    60  reserved
 *
 * With CURRENT_SPANS a slot is longer, and what follows it lies that much further on:
 *   0  slot       72  owner      76  others     80  has_attached    84  reserved    88  padding[5]
 */
struct place {
	struct slot slot;
	__u32 owner;		/* whose slot it is: its tid; 0: nobody's (thread 0 is idle and makes no calls) */
	__u32 others;		/* how many more threads with these bits have a slot: elsewhere */
	__u32 has_attached;	/* the agent has made such slots, which are not counted in `others` */
	__u32 reserved;
#ifdef CURRENT_SPANS
	__u64 padding[5];	/* no place lies on two pages: the agent maps one */
#endif
};

/* What threads are chosen or left out by; `selection` has the values asked for. */
enum selector {
	SELECTOR_PID = 0,	/* thread group id */
	SELECTOR_TID = 1,
	SELECTOR_UID = 2,	/* real user id */
	SELECTOR_COMM = 3,
	SELECTOR_CGROUP = 4,	/* inode number of the cgroup's directory */
};
#define SELECTOR_EXCLUDED 8	/* added to a selector's kind: leave out what matches */

/* A key of `selection`: 0  kind    8  value[2]: a number, or a comm's 16 bytes. */
struct selector_key {
	__u64 kind;
	__u64 value[2];
};

/* A pattern for the executable's path, zero padded: behind its last byte is always one more. */
#define GLOB_SIZE 264
#define GLOB_LENGTH_MAX 255

/*
 * How much may be emitted until the agent's next word, which comes about once a
 * second (--max-rate).
 *
 *   0  threshold    4  budget    8  kept_budget    12  emitted    16  kept    20  reserved
 */
struct rate {
	__u32 threshold;	/* as call_record.threshold */
	__u32 budget;		/* sampled calls; then the probability is halved, and again after each further eighth */
	__u32 kept_budget;	/* calls of kept classes; those after it are sampled like others */
	__u32 emitted;		/* of budget */
	__u32 kept;		/* of kept_budget */
	__u32 reserved;
};

#ifdef CURRENT_SPANS
_Static_assert(sizeof(struct call_record) == 112 + 24, "call_record has no holes");
_Static_assert(sizeof(struct slot) == 48 + 24, "slot has no holes");
_Static_assert(sizeof(struct place) == 128, "a place fills two cache lines");
#else
_Static_assert(sizeof(struct call_record) == 112, "call_record has no holes");
_Static_assert(sizeof(struct slot) == 48, "slot has no holes");
_Static_assert(sizeof(struct place) == 64, "a place fills a cache line");
#endif
_Static_assert(sizeof(struct span_context) == 24, "span_context has no holes");
_Static_assert(sizeof(struct string_record) == 24 + STRING_SIZE, "string_record has no holes");
_Static_assert(sizeof(struct task_record) == 88, "task_record has no holes");
_Static_assert(sizeof(struct selector_key) == 24, "selector_key has no holes");
_Static_assert(sizeof(struct rate) == 24, "rate has no holes");

#endif
