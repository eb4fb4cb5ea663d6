/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Texts that calls and execs refer to: records of a size, each named by the CPU
 * it was made on and a number of that CPU.
 */

/* Of the next string. */
BPF_PERCPU_ARRAY(string_seqs, u64, 1);
/* Nothing but zeros: what is too long to be cleared by inlined stores is cleared from here. */
struct zeros {
	char text[STRING_SIZE];
};
BPF_ARRAY(zeros, struct zeros, 1);

#define INLINED_MAX 512	/* more stores than this many bytes need, LLVM makes a call of, and there is no such function */

/* Every byte is zero or set, but for text and length, which come next. */
static __always_inline void begin_string(struct string_record *record, u8 role, u32 seq, u16 cpu)
{
#if STRING_SIZE <= INLINED_MAX
	__builtin_memset(record, 0, sizeof(*record));
#else
	u32 zero = 0;
	struct zeros *none = zeros.lookup(&zero);

	__builtin_memset(record, 0, __builtin_offsetof(struct string_record, text));
	if (none)
		bpf_probe_read_kernel(record->text, STRING_SIZE, none);
#endif
	record->seq = seq;
	record->cpu = cpu;
	record->role = role;
}

/* *length*: as a helper returned it for a text, its NUL included; negative: it could not be read. */
static __always_inline void end_text(struct string_record *record, int length)
{
	if (length < 0)
		count_atomically(LEDGER_STRINGS_UNREADABLE);
	record->length = length < 0 ? length : length - 1;
}

/* The same for the *length* bytes of something that is no text. */
static __always_inline void end_bytes(struct string_record *record, int error, u32 length)
{
	if (error)
		count_atomically(LEDGER_STRINGS_UNREADABLE);
	record->length = error ? error : (s32)length;
}

static __always_inline u32 next_string_seq(void)
{
	u32 zero = 0;
	u64 *seq = string_seqs.lookup(&zero);

	return seq ? (u32)(*seq += 1) : 0;
}

/* An argument by a number that differs: a choice of constants, since old verifiers refuse a variable index into ring memory. */
static __always_inline u64 argument(u64 *args, u32 one_plus_index)
{
	return one_plus_index == 1 ? args[0] : one_plus_index == 2 ? args[1] :
	       one_plus_index == 3 ? args[2] : one_plus_index == 4 ? args[3] :
	       one_plus_index == 5 ? args[4] : args[5];
}

static __always_inline void emit_path(struct call_record *record, u64 address, u8 role)
{
	struct string_record *string = strings.ringbuf_reserve(sizeof(struct string_record));

	if (!string) {
		count_atomically(LEDGER_STRINGS_DROPPED);
		return;
	}
	begin_string(string, role, record->string_seq, record->string_cpu);
	end_text(string, bpf_probe_read_user_str(string->text, STRING_READ, (void *)address));
	strings.ringbuf_submit(string, BPF_RB_NO_WAKEUP);
}

#define ADDRESS_SIZE 128	/* of struct sockaddr_storage: no address is longer */
#define ROOM_UNKNOWN 255	/* at sys_enter the memory was not there: paged out, or never touched */

/*
 * At sys_enter: how many bytes accept, recvfrom and their like may write of an address. On return the program has the
 * address's own length there, and behind a shorter buffer lies what is none of our business.
 */
static __always_inline u8 address_room(u32 entry, struct registers *regs, u8 abi)
{
	u64 args[6];
	u32 room = 0;

	registers_args(regs, abi, args);
	if (bpf_probe_read_user(&room, sizeof(room), (void *)argument(args, ENTRY_ARGUMENT(entry, ENTRY_ADDRESS_LENGTH))))
		return ROOM_UNKNOWN;
	return room > ADDRESS_SIZE ? ADDRESS_SIZE : room;
}

/* A struct sockaddr. accept, recvfrom and their like wrote it, and its length, before they returned. Returns whether it is told. */
static __always_inline bool emit_address(struct call_record *record, u32 entry, u8 room)
{
	u64 address = argument(record->args, ENTRY_ARGUMENT(entry, ENTRY_ADDRESS));
	u64 given = argument(record->args, ENTRY_ARGUMENT(entry, ENTRY_ADDRESS_LENGTH));
	struct string_record *string;
	u32 length = given;
	int error;

	if (entry & ENTRY_IS_ADDRESS_OUT) {
		if (bpf_probe_read_user(&length, sizeof(length), (void *)given))
			length = 0;
		if (length > room)
			length = room;
	}
	if (!length)	/* none was wanted, or none is there */
		return false;
	string = strings.ringbuf_reserve(sizeof(struct string_record));
	if (!string) {
		count_atomically(LEDGER_STRINGS_DROPPED);
		return false;
	}
	begin_string(string, STRING_ADDRESS, record->string_seq, record->string_cpu);
	if (length > ADDRESS_SIZE)
		length = ADDRESS_SIZE;
	/* -EFAULT, counted as such: how much of it is the address is not known. */
	error = entry & ENTRY_IS_ADDRESS_OUT && room == ROOM_UNKNOWN ? -14 :
		bpf_probe_read_user(string->text, length, (void *)address);
	end_bytes(string, error, length);
	strings.ringbuf_submit(string, BPF_RB_NO_WAKEUP);
	return true;
}

/*
 * Texts of a call that survived the filters, read at exit: the kernel has just
 * read that memory, so it is there. Returns whether there may be any.
 */
static __always_inline bool emit_strings(struct call_record *record, u32 entry, u8 room)
{
	u32 first = ENTRY_ARGUMENT(entry, ENTRY_FIRST_PATH), second = ENTRY_ARGUMENT(entry, ENTRY_SECOND_PATH);
	u64 address = argument(record->args, ENTRY_ARGUMENT(entry, ENTRY_ADDRESS));
	bool has_address = ENTRY_ARGUMENT(entry, ENTRY_ADDRESS) && address &&
			   (!(entry & ENTRY_IS_ADDRESS_OUT) || record->ret >= 0);

	if (!first && !has_address)
		return false;
	record->string_cpu = bpf_get_smp_processor_id();
	record->string_seq = next_string_seq();
	if (first)
		emit_path(record, argument(record->args, first), STRING_FIRST_PATH);
	if (second)
		emit_path(record, argument(record->args, second), STRING_SECOND_PATH);
	/* What is not told must not be waited for: who reads would read on for it. */
	return (has_address && emit_address(record, entry, room)) || first;
}
