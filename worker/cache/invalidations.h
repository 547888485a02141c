/*
 * invalidations: what has been invalidated lately, so that it holds at once: each hit and each fill
 * is looked at before it counts, while a sweep removes what is stored.
 *
 * They are numbered from 1 on, here, as they arrive from any broker. An entry is born with the
 * number that was the latest when its attempt began (0: before this start), and whatever came later
 * and fits takes it away. One is kept until it was swept and no attempt can be as old. When too
 * many are, the oldest is given up: of one that was swept nothing is lost but the fills that began
 * before it; for one that was not, the next one of its tenant takes all of that tenant.
 *
 * Pure; belongs to one thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "proto/records.pb-c.h"
#include "proto/wire.pb-c.h"

enum { INVALIDATIONS_MAX = 10000, INVALIDATIONS_KEY_BYTES = 16 };

/* How near two texts are. Reading one is dear: a selector's is read when it comes, and an entry's
 * once for all of them. */
struct nearness {
    /* Gives: *ret_text, to be released with free(); NULL: it is near to none. Errors: -ENOMEM. */
    int (*read)(const char *text, void **ret_text);
    /* From -1 to 1. */
    double (*cosine)(const void *text, const void *other);
};

struct invalidations;

/* `nearness` must outlive them. Errors: -ENOMEM. */
MUST_USE int invalidations_create(const struct nearness *nearness,
                                  struct invalidations **ret_invalidations);
void invalidations_destroy(struct invalidations **invalidations);

/*
 * NULL: everything. Copies. Ages count from `now_unix_ms`. `swept`: up to this number all that is
 * stored was swept. One that names an entry takes the place of an earlier one that named it.
 * Errors: -ENOMEM, and then everything born before counts as invalid.
 */
MUST_USE int invalidations_add(struct invalidations *invalidations,
                               const Wire__CacheSelector *selector, uint64_t swept,
                               int64_t now_unix_ms);
/* The number of the latest; 0: none yet. */
uint64_t invalidations_latest(const struct invalidations *invalidations);
/* Something that came after `born` fits this entry, or may: there is no memory to tell. */
bool invalidations_fit(struct invalidations *invalidations,
                       const uint8_t key[INVALIDATIONS_KEY_BYTES], const Record__CacheAbout *about,
                       uint64_t born);
/* Forgets those up to `number`: they were swept, and no attempt that runs began before them. */
void invalidations_forget(struct invalidations *invalidations, uint64_t number);
/*
 * The latest that had come before this time, as far as it is known: else one that is forgotten,
 * before which invalidations_forgotten() says that it is not.
 */
uint64_t invalidations_before(const struct invalidations *invalidations, int64_t at_unix_ms);
/* The latest that is forgotten: of what began before it nobody can say whether it holds. */
uint64_t invalidations_forgotten(const struct invalidations *invalidations);
/* The next one has the number behind this. Before the first. */
void invalidations_count_from(struct invalidations *invalidations, uint64_t number);
size_t invalidations_length(const struct invalidations *invalidations);
/* How many comparisons of texts invalidations_fit() has made so far: each is a quarter of a
 * microsecond. */
uint64_t invalidations_compared(const struct invalidations *invalidations);

/* One selector by itself: for counting. */
struct selector {
    const Wire__CacheSelector *message;
    int64_t at_unix_ms; /* from which ages count */
    const struct nearness *nearness;
    void *near_text; /* read; owned */
};

/* Keeps the message and what is near. Errors: -ENOMEM. */
MUST_USE int selector_init(struct selector *selector, const Wire__CacheSelector *message,
                           int64_t at_unix_ms, const struct nearness *nearness);
void selector_finish(struct selector *selector);
bool selector_fits(const struct selector *selector, const uint8_t key[INVALIDATIONS_KEY_BYTES],
                   const Record__CacheAbout *about);
