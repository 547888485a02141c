/*
 * crew: runs seeds one after the other, or in processes beside each other; what they came to is
 * told in the order of seeds either way.
 *
 * A process that crashes fails its seed and no other one.
 */
#pragma once
#include <sys/types.h>
#include "tests/simulation/simulation.h"

enum { PROCESSES_MAX = 64 };

typedef void crew_run_fn(const struct options *options, enum trace_mode mode,
                         struct outcome *ret_outcome);

struct crew {
    struct options options;
    uint64_t seeds, next; /* next: the index of the one that is told next */
    uint32_t processes;   /* 1: in this process */
    enum trace_mode mode;
    crew_run_fn *run;
    struct {
        pid_t pid;
        int pipe; /* to read outcomes from */
    } members[PROCESSES_MAX];
};

void crew_begin(struct crew *crew, const struct options *options, uint64_t seeds,
                uint32_t processes, enum trace_mode mode, crew_run_fn *run);
/* Waits for the next seed's outcome. Gives the seed. */
uint64_t crew_next(struct crew *crew, struct outcome *ret_outcome);
/* Ends what still runs. */
void crew_end(struct crew *crew);
