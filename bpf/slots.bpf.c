/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Who is a target, and what call it is in: one slot a thread.
 *
 * A slot lies in an array, at the place that the lower bits of its thread's id
 * name: neither a target's call nor a stranger's needs a hash, which would be a tenth
 * of all that a recorded call costs. A place has one owner: who inserts it in
 * `pending_owners` has it, so no two threads have the same. A thread that finds its place
 * taken has its slot in a hash, and the place says that there is one.
 *
 * The agent (otel_sysexit/kernel/slots.py) makes slots at the same time, for threads that
 * run already; in the hash alone, where making one is one step. At its next sys_enter, in
 * which nobody else works on it, a thread moves its slot to its place if that is free. Should a
 * thread have been given a slot by both, the place counts, and both go at its end.
 *
 *   PENDING_PLACES               places, a power of two
 */

#ifndef PENDING_PLACES
#define PENDING_PLACES 32768
#endif

#define BPF_F_MMAPABLE (1U << 10)	/* include/uapi/linux/bpf.h */

BPF_F_TABLE("array", u32, struct place, pending, PENDING_PLACES, BPF_F_MMAPABLE);
BPF_HASH(pending_owners, u32, u32, PENDING_PLACES);
BPF_HASH(pending_others, u32, struct slot, SIZE_OF_LOADER);

static __always_inline struct place *place_of(u32 tid)
{
	u32 index = tid % PENDING_PLACES;

	return pending.lookup(&index);
}

static __always_inline bool has_others(struct place *place)
{
	return place->others || place->has_attached;
}

/* The slot of a thread; NULL: it is not a target. */
static __always_inline struct slot *find_slot(u32 tid)
{
	struct place *place = place_of(tid);

	if (!place)	/* cannot be; the verifier wants it */
		return NULL;
	if (likely(place->owner == tid))
		return &place->slot;
	return unlikely(has_others(place)) ? pending_others.lookup(&tid) : NULL;
}

/* Is the place this thread's from now on? */
static __always_inline bool take_place(u32 tid)
{
	u32 index = tid % PENDING_PLACES;

	return !pending_owners.insert(&index, &tid);
}

/* A slot that the agent made is subtracted, too; its mark stays, so that does not matter. */
static __always_inline void delete_other(struct place *place, u32 tid)
{
	if (!pending_others.delete(&tid))
		__sync_fetch_and_add(&place->others, -1);
}

/* The slot of the thread that runs, which moves to its place when that is free; NULL: it is not a target. */
static __always_inline struct slot *settle_slot(u32 tid)
{
	struct place *place = place_of(tid);
	struct slot *slot;

	if (!place)	/* cannot be */
		return NULL;
	if (likely(place->owner == tid))
		return &place->slot;
	if (likely(!has_others(place)))
		return NULL;
	slot = pending_others.lookup(&tid);
	if (!slot || place->owner || !take_place(tid))
		return slot;
	place->slot = *slot;
	place->owner = tid;
	delete_other(place, tid);
	return &place->slot;
}

/* The slot of a thread that becomes a target; NULL: there is no room. */
static __always_inline struct slot *add_slot(u32 tid, u32 tgid, u8 state)
{
	struct slot fresh = {
		.tid = tid, .tgid = tgid, .interrupted_nr = -1, .state = state,
		.was_target = state != SLOT_EXCLUDED,
	};
	struct place *place = place_of(tid);

	if (!place)	/* cannot be */
		return NULL;
	if (take_place(tid)) {
		place->slot = fresh;
		place->owner = tid;
		return &place->slot;
	}
	__sync_fetch_and_add(&place->others, 1);
	if (pending_others.update(&tid, &fresh)) {
		__sync_fetch_and_add(&place->others, -1);
		return NULL;
	}
	return pending_others.lookup(&tid);
}

static __always_inline void delete_slot(u32 tid)
{
	u32 index = tid % PENDING_PLACES;
	struct place *place = pending.lookup(&index);

	if (!place)	/* cannot be */
		return;
	if (place->owner == tid) {
		place->owner = 0;
		pending_owners.delete(&index);
	}
	if (has_others(place))
		delete_other(place, tid);
}

/* An exec by a thread that is not the leader takes the leader's tid: its slot goes with it. NULL: it has none. */
static __always_inline struct slot *move_slot(u32 from, u32 to)
{
	struct slot *slot = find_slot(from);
	struct slot copy;

	if (!slot)
		return NULL;
	copy = *slot;
	slot = find_slot(to);
	if (slot && slot->start_ns > SAMPLED_OUT_AT_ENTER)	/* the leader's, killed after sys_exit was detached */
		count_atomically(LEDGER_DROPPED_OVERWRITTEN);
	if (!slot)
		slot = add_slot(to, copy.tgid, copy.state);
	if (!slot) {
		count_atomically(LEDGER_THREADS_UNFOLLOWED);
		if (copy.start_ns > SAMPLED_OUT_AT_ENTER)
			count_atomically(LEDGER_DROPPED_OVERWRITTEN);
	} else {
		*slot = copy;
	}
	delete_slot(from);	/* last: there is no moment without a target */
	return slot;
}
