/* memory: the simulator does not outlive a lack of memory; what it tests does. */
#pragma once
#include <stdio.h>
#include <stdlib.h>

static inline void *must(void *memory)
{
    if (memory == NULL) {
        fputs("tiermq-simulate: out of memory\n", stderr);
        abort();
    }
    return memory;
}
