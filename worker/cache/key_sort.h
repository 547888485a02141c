/*
 * key_sort: sorts a few hundred numbers in about a microsecond, where qsort() takes ten.
 *
 * By bytes, lowest first (LSD radix sort; Knuth, The Art of Computer Programming 3, 5.2.5); a byte
 * that all keys share costs nothing. What belongs to a number goes into its low bits.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Ascending. `scratch`: room for as many. */
void key_sort(uint64_t *keys, uint64_t *scratch, size_t length);
