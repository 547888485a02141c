/*
 * loads: what was asked of the store and not answered, by token.
 *
 * A token names a slot and how often the slot was used, so an answer that is no longer expected finds nothing.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/id.h"

enum { LOADS_MAX = 8192 };

enum load_kind { LOAD_PAYLOAD, LOAD_RESULT };

struct load {
    struct id job_id;
    uint64_t peer; /* RESULT: the client that asked */
    uint32_t generation;
    uint16_t next_free;
    uint8_t kind;
    bool is_open;
};

struct loads {
    struct load *slots;
    uint16_t first_free;
    size_t open;
};

MUST_USE int loads_init(struct loads *loads); /* Errors: -ENOMEM */
void loads_finish(struct loads *loads);
/* The token; 0: LOADS_MAX are open. */
uint64_t loads_open(struct loads *loads, enum load_kind kind, const struct id *job_id, uint64_t peer);
/* Closes it and copies what it was; false: not expected. */
bool loads_close(struct loads *loads, uint64_t token, struct load *ret_load);
