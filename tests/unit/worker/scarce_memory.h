/*
 * scarce_memory: allocations of the program that fail, for one test program with --wrap for each of
 * the four functions.
 */
#pragma once
#include <stdbool.h>
#include <stdlib.h>

static bool memory_is_scarce;
static int allocations_left;

static inline bool allocation_fails(void)
{
    return memory_is_scarce && allocations_left-- <= 0;
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    return allocation_fails() ? NULL : __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    return allocation_fails() ? NULL : __real_calloc(n, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes)
{
    return allocation_fails() ? NULL : __real_realloc(memory, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    return allocation_fails() ? NULL : __real_aligned_alloc(alignment, bytes);
}

static inline void let_memory_be_scarce(int allocations)
{
    allocations_left = allocations;
    memory_is_scarce = true;
}

static inline void let_memory_be_plenty(void)
{
    memory_is_scarce = false;
}
