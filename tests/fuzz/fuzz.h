/*
 * fuzz: what every target of this folder is: one function over foreign bytes, which must hold
 * whatever they are.
 *
 * Linked with libFuzzer (option `fuzz`, tests/fuzz/run.sh) it searches; linked with replay.c, in
 * every build, it goes through the corpus. A property that does not hold aborts.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* What libFuzzer reports as a crash. */
static inline void must_hold(int fact)
{
    if (!fact) {
        abort();
    }
}
