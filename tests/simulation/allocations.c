#include "tests/simulation/allocations.h"
#include <stdlib.h>

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__real_reallocarray(void *memory, size_t n, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t n, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void *__wrap_reallocarray(void *memory, size_t n, size_t bytes);

/* An allocator has no parameter for it. */
static struct {
    bool is_armed, has_failed;
    uint32_t left, failures;
    size_t bytes_max;
} plan;

void allocations_fail(uint32_t left, uint32_t failures, size_t bytes_max)
{
    plan.is_armed = true;
    plan.has_failed = false;
    plan.left = left;
    plan.failures = failures;
    plan.bytes_max = bytes_max;
}

bool allocations_end(void)
{
    plan.is_armed = false;
    return plan.has_failed;
}

static bool fails(size_t bytes)
{
    if (!plan.is_armed || bytes > plan.bytes_max) {
        return false;
    }
    if (plan.left > 0) {
        plan.left--;
        return false;
    }
    if (plan.failures == 0) {
        return false;
    }
    plan.failures--;
    plan.has_failed = true;
    return true;
}

__attribute__((used)) void *__wrap_malloc(size_t bytes)
{
    return fails(bytes) ? NULL : __real_malloc(bytes);
}

__attribute__((used)) void *__wrap_calloc(size_t n, size_t bytes)
{
    return fails(n * bytes) ? NULL : __real_calloc(n, bytes);
}

__attribute__((used)) void *__wrap_realloc(void *memory, size_t bytes)
{
    return fails(bytes) ? NULL : __real_realloc(memory, bytes);
}

__attribute__((used)) void *__wrap_reallocarray(void *memory, size_t n, size_t bytes)
{
    return fails(n * bytes) ? NULL : __real_reallocarray(memory, n, bytes);
}
