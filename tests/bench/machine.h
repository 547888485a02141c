/*
 * machine: what the machine gives, to be printed beside what depends on it.
 *
 * What a virtual machine's neighbours leave of the processor's caches differs by ten times from one
 * hour to the next, and lookups follow it. Its host interrupts it, too, some hundred times a second
 * for tens of microseconds: one in a hundred of what takes some microseconds is as late as that.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Nanoseconds of a read whose address the one before it gives, at random within `bytes` (a multiple
 * of 64). Ends the program when there is no memory. */
double machine_read_ns(size_t bytes);
/*
 * Of computations that take `ns` where nothing interrupts them, and use neither memory nor calls:
 * how long one in a hundred takes, in nanoseconds.
 */
double machine_spin_p99_ns(int64_t ns);
