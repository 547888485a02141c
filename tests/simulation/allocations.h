/*
 * allocations: memory that runs out when a run says so, in the core alone: the simulator lives on.
 *
 * malloc() and its like are wrapped by the linker (meson.build). Between allocations_fail() and
 * allocations_end() they work `left` times, then fail `failures` times, then work again. What asks
 * for more than `bytes_max` always works, and does not count.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void allocations_fail(uint32_t left, uint32_t failures, size_t bytes_max);
/* Returns whether any has failed. */
bool allocations_end(void);
