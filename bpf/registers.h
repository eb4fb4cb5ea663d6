/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Where a system call's number and arguments are, by architecture.
 *
 * Registers at sys_exit still are what they were at sys_enter, but for a
 * successful exec and rt_sigreturn; so they are read at exit, for the calls
 * that survive the filters only.
 */
#ifndef OTEL_SYSEXIT_REGISTERS_H
#define OTEL_SYSEXIT_REGISTERS_H

#if defined(ARCH_X86_64)

#define ABI_NATIVE ABI_X86_64
#define ABI_COMPAT ABI_I386
#define COMPAT_MASK 0x2		/* TS_COMPAT in thread_info.status */
#define X32_BIT 0x40000000

/* The part of struct pt_regs (arch/x86/include/asm/ptrace.h) from bp on. */
struct registers {
	u64 bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
};
#define REGISTERS_OFFSET 32	/* r15, r14, r13, r12 come first */
#define REGISTERS_NR 120	/* of orig_ax in struct pt_regs */

static inline __attribute__((always_inline)) void
registers_args(struct registers *regs, u8 abi, u64 *args)
{
	if (abi == ABI_I386) {
		args[0] = (u32)regs->bx;
		args[1] = (u32)regs->cx;
		args[2] = (u32)regs->dx;
		args[3] = (u32)regs->si;
		args[4] = (u32)regs->di;
		args[5] = (u32)regs->bp;
	} else {
		args[0] = regs->di;
		args[1] = regs->si;
		args[2] = regs->dx;
		args[3] = regs->r10;
		args[4] = regs->r8;
		args[5] = regs->r9;
	}
}

/* At sys_enter. */
static inline __attribute__((always_inline)) u64 registers_first_arg(struct registers *regs, u8 abi)
{
	return abi == ABI_I386 ? (u32)regs->bx : regs->di;
}

/* A child's return from fork is traced as a sys_exit of its own. */
#define BORN_STATE SLOT_NEWBORN
#define NR_EXECVE 59
#define is_close(abi, nr) ((nr) == ((abi) == ABI_I386 ? 6 : 3))
#define is_exit(abi, nr) \
	((abi) == ABI_I386 ? (nr) == 1 || (nr) == 252 : (nr) == 60 || (nr) == 231)
#define is_restart(abi, nr) ((nr) == ((abi) == ABI_I386 ? 0 : 219))
#define is_sigreturn(abi, nr) \
	((abi) == ABI_I386 ? (nr) == 173 || (nr) == 119 : \
	 (nr) == ((abi) == ABI_X32 ? 513 : 15))

#elif defined(ARCH_AARCH64)

#define ABI_NATIVE ABI_AARCH64
#define ABI_COMPAT ABI_ARM
#define COMPAT_MASK (1 << 22)	/* _TIF_32BIT in thread_info.flags */

/* struct pt_regs: regs[31], sp, pc, pstate, orig_x0, syscallno. */
struct registers {
	u64 regs[31], sp, pc, pstate, orig_x0;
	s32 syscallno;
	u32 unused;
};
#define REGISTERS_OFFSET 0
#define REGISTERS_NR 280	/* of syscallno in struct pt_regs */

/* regs[0] holds the result at sys_exit; orig_x0 keeps the argument. */
static inline __attribute__((always_inline)) void
registers_args(struct registers *regs, u8 abi, u64 *args)
{
	args[0] = regs->orig_x0;
	args[1] = regs->regs[1];
	args[2] = regs->regs[2];
	args[3] = regs->regs[3];
	args[4] = regs->regs[4];
	args[5] = regs->regs[5];
	if (abi == ABI_ARM) {
		args[0] = (u32)args[0];
		args[1] = (u32)args[1];
		args[2] = (u32)args[2];
		args[3] = (u32)args[3];
		args[4] = (u32)args[4];
		args[5] = (u32)args[5];
	}
}

/* At sys_enter. */
static inline __attribute__((always_inline)) u64 registers_first_arg(struct registers *regs, u8 abi)
{
	return abi == ABI_ARM ? (u32)regs->regs[0] : regs->regs[0];
}

/* A child begins behind the tracing of sys_exit (arch/arm64/kernel/entry.S: ret_from_fork). */
#define BORN_STATE SLOT_NORMAL
#define NR_EXECVE 221
#define is_close(abi, nr) ((nr) == ((abi) == ABI_ARM ? 6 : 57))
#define is_exit(abi, nr) \
	((abi) == ABI_ARM ? (nr) == 1 || (nr) == 248 : (nr) == 93 || (nr) == 94)
#define is_restart(abi, nr) ((nr) == ((abi) == ABI_ARM ? 0 : 128))
#define is_sigreturn(abi, nr) \
	((abi) == ABI_ARM ? (nr) == 173 || (nr) == 119 : (nr) == 139)

#else
#error "this architecture is not known: define ARCH_X86_64 or ARCH_AARCH64"
#endif

#endif
