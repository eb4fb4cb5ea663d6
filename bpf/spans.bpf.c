/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Which span of its application a thread is in, as OpenTelemetry eBPF Instrumentation
 * (OBI) says in a map that it pins for others to read: devdocs/trace-profile-correlation.md
 * there. The loader puts that map's descriptor in the place of `current_spans`, which is
 * never filled: the one entry is because no map has none.
 *
 * It is read at sys_enter. A server's read() that waits for the next request is not part
 * of that request, but at sys_exit the thread would already be in it, and the call would begin before its
 * parent. With CURRENT_SPANS a slot has room for it.
 *
 * Nothing is written: the map is another program's. An entry that it throws out while we copy
 * it could come out as parts of two; a look-up marks it as used, so that others go first.
 */

#ifdef CURRENT_SPANS
/* Key: as bpf_get_current_pid_tgid(), tgid << 32 | tid, of the initial pid namespace. */
BPF_TABLE("lru_hash", u64, struct span_context, current_spans, 1);
#endif

/* Note which span the thread that runs is in. */
static __always_inline void note_span(struct slot *slot)
{
#ifdef CURRENT_SPANS
	struct span_context none = {}, *span;
	u64 thread = bpf_get_current_pid_tgid();

	span = current_spans.lookup(&thread);
	slot->span = span ? *span : none;
#endif
}
