/*
 * wanted: texts of entries whose vectors are not made by the cache's thread: a batch that goes from
 * the keeper to the loop, and comes back with what could be had (wanted_errand.h).
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum { WANTED_MAX = 64, WANTED_KEY_BYTES = 16 };

struct wanted_text {
    uint8_t key[WANTED_KEY_BYTES];
    char *text;     /* owned */
    bool is_known;  /* it was answered */
    int8_t *vector; /* owned; known and NULL: the embedder knows nothing of the text, or never takes
                       it */
};

struct wanted {
    size_t length;
    struct wanted_text texts[WANTED_MAX];
};

/* Errors: -ENOMEM. */
MUST_USE int wanted_create(struct wanted **ret_wanted);
void wanted_destroy(struct wanted **wanted);
/* Copies. False: it is full, or there is no memory. */
bool wanted_add(struct wanted *wanted, const uint8_t key[WANTED_KEY_BYTES], const char *text);
