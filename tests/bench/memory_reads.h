/*
 * memory_reads: how fast the machine's memory is, to be printed beside what depends on it.
 *
 * What a virtual machine's neighbours leave of the processor's caches differs by ten times from one
 * hour to the next, and lookups follow it.
 */
#pragma once
#include <stddef.h>

/* Nanoseconds of a read whose address the one before it gives, at random within `bytes` (a multiple
 * of 64). Ends the program when there is no memory. */
double memory_read_ns(size_t bytes);
