/*
 * plan: what job number N of a load client is. It follows from the client's name, the seed and N
 * alone, so that a client that is started again knows what it had begun without being told.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct plan {
    const char *tier, *operation;
    char *prompt; /* owned */
    char key[64]; /* "": none */
    unsigned priority;
    int64_t lasts_ms; /* its deadline, from its submission */
    int64_t delay_ms;
    int64_t cancel_after_ms; /* 0: never */
    bool is_durable;
    bool stream, detach, discard;
    bool ask_again;       /* once it is concluded */
    bool again_by_submit; /* rather than by a wait */
};

/* Ends the process when memory does not suffice. To be released with plan_finish(). */
void plan_make(const char *client, uint64_t seed, uint64_t number, struct plan *ret_plan);
void plan_finish(struct plan *plan);
