/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Which calls of those that passed the filters are kept. A call is kept if a
 * random number reaches the threshold, which travels in its record: whatever the
 * threshold was at that moment, the call stands for 2^32 / (2^32 - threshold) calls.
 *
 * Decided at sys_enter when nothing that is known later can overrule it, and
 * nobody asks meanwhile what does not return (SAMPLE_AT_ENTER), else at sys_exit.
 */

#if defined(SAMPLE_THRESHOLD) || defined(MAX_RATE)
#define SAMPLE
/* A rate is one of calls that pass the filters by outcome; a fixed part of all calls is as good as one of those. */
#if defined(MAX_RATE) && (defined(ERRORS_ONLY) || defined(ERRNO_SET) || defined(MIN_DURATION_NS))
#define SAMPLE_BY_OUTCOME
#endif
#if !defined(KEEP_ERRORS) && !defined(KEEP_SLOW_NS) && !defined(SAMPLE_BY_OUTCOME) && !defined(REPORT_STUCK)
#define SAMPLE_AT_ENTER
#endif
#endif

BPF_ARRAY(rate, struct rate, 1);
/* Index: errno, 0 for calls that did not fail. Bits: ERRNO_*. */
BPF_ARRAY(errnos, u8, 4096);
#define ERRNO_IS_WANTED 1	/* by --errno */
#define ERRNO_IS_KEPT 2		/* by --keep-errors */
/* In ns, index as in syscall_table. */
#ifdef MIN_DURATION_BY_CALL
BPF_ARRAY(min_durations, u64, ABI_COUNT * NR_LIMIT);
#endif
#ifdef KEEP_SLOW_BY_CALL
BPF_ARRAY(keep_slow, u64, ABI_COUNT * NR_LIMIT);
#endif

#define IS_REFUSED (-1LL)

static __always_inline bool has_errno(s64 ret, u8 bit)
{
	u32 code = (u64)ret >= (u64)-4095 ? (u32)-ret : 0;
	u8 *entry = errnos.lookup(&code);

	return entry && *entry & bit;
}

#ifdef SAMPLE

/*
 * When *budget* is spent, half of what was kept before, and half again after each further eighth of it: the largest burst
 * ends at three or four budgets, and every call says by how much it was thinned out.
 */
static __always_inline u32 current_threshold(void)
{
#ifdef MAX_RATE
	u32 zero = 0, emitted, step, halvings;
	struct rate *now = rate.lookup(&zero);
	u64 kept;

	if (!now)	/* cannot be */
		return 0;
	emitted = now->emitted;
	if (likely(emitted < now->budget) || !now->budget)
		return now->threshold;
	step = now->budget / 8;
	halvings = 1 + (emitted - now->budget) / (step ? step : 1);
	kept = (1ULL << 32) - now->threshold;
	kept >>= halvings > 31 ? 31 : halvings;
	return (u32)((1ULL << 32) - (kept ? kept : 1));
#else
	return SAMPLE_THRESHOLD;
#endif
}

/* The threshold at which a call is kept; IS_REFUSED: it is not. */
static __always_inline s64 sample(void)
{
	u32 threshold = current_threshold();

	if (threshold && bpf_get_prandom_u32() < threshold)
		return IS_REFUSED;
#ifdef MAX_RATE
	{
		u32 zero = 0;
		struct rate *now = rate.lookup(&zero);

		if (now)
			__sync_fetch_and_add(&now->emitted, 1);
	}
#endif
	return threshold;
}

/* May one more of the kept classes be kept? With MAX_RATE they have a budget of their own. */
static __always_inline bool take_kept(void)
{
#ifdef MAX_RATE
	u32 zero = 0;
	struct rate *now = rate.lookup(&zero);

	if (!now || now->kept >= now->kept_budget) {
		count_atomically(LEDGER_KEEP_REFUSED);
		return false;
	}
	__sync_fetch_and_add(&now->kept, 1);
#endif
	return true;
}

#endif

/* Never returned, not executed, or restored by rt_sigreturn: what looks like a result is none. */
static __always_inline bool is_kept(struct slot *slot, s64 ret, bool has_result, u64 duration_ns)
{
#ifdef KEEP_ERRORS
	if (has_result && is_error(ret) && has_errno(ret, ERRNO_IS_KEPT))
		return true;
#endif
#ifdef KEEP_SLOW_BY_CALL
	{
		u32 index = slot->abi * NR_LIMIT + (u32)slot->nr;
		u64 *slow_ns = (u32)slot->nr < NR_LIMIT ? keep_slow.lookup(&index) : NULL;

		return duration_ns >= (slow_ns ? *slow_ns : KEEP_SLOW_NS);
	}
#elif defined(KEEP_SLOW_NS)
	return duration_ns >= KEEP_SLOW_NS;
#else
	return false;
#endif
}
