/*
 * time_slice: how long the kernel lets a thread run at a time, when others wait for the processor
 * too.
 *
 * From Linux 6.12 on each thread may ask for a slice of its own (sched_setattr(2), EEVDF). A
 * shorter one gives a thread no more of the processor, only sooner: one that wakes may then
 * interrupt another that has just begun one of the usual 3 ms. That is what a thread needs that
 * does little for each message, and whose messages somebody waits for; one that computes is better
 * off with fewer interruptions. Kernels before that ignore it. Threads begun later have the slice
 * of the thread that begins them.
 */
#pragma once

enum { TIME_SLICE_SHORT_NS = 300000 };

/*
 * Asks for short slices for the calling thread, if it is scheduled as threads usually are; its
 * niceness stays. What the kernel refuses is left as it was: nothing depends on it.
 */
void time_slice_shorten(void);
