@ A program of 32-bit arm, run by an aarch64 kernel: a few calls whose results its test knows.
	.syntax unified
	.arm
	.global _start
_start:
	mov r7, #64		@ getppid()
	svc #0
	mvn r0, #99		@ openat(AT_FDCWD, "/nonexistent/file", O_RDONLY)
	ldr r1, =path
	mov r2, #0
	movw r7, #322
	svc #0
	movw r0, #9999		@ close(9999)
	mov r7, #6
	svc #0
	mov r0, #1		@ process_vm_readv(1, 2, 3, 4, 5, 6)
	mov r1, #2
	mov r2, #3
	mov r3, #4
	mov r4, #5
	mov r5, #6
	movw r7, #376
	svc #0
	movw r7, #9999		@ no call
	svc #0
	mov r0, #7		@ exit_group(7)
	mov r7, #248
	svc #0
path:
	.asciz "/nonexistent/file"
