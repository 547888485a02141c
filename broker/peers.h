/*
 * peers: who is connected: their names at the link and the numbers under which the core knows their
 * owners.
 *
 * A number names one hello: it is never used again, so an effect for a connection that was replaced
 * reaches nobody. Find, add, remove and touch are O(1). The two sides are counted and aged apart.
 * Belongs to the loop.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/list.h"

enum peer_side { PEER_CLIENT, PEER_WORKER };
enum { PEER_SIDES = 2 };

struct outbox;
struct peers;

struct peer {
    uint64_t number;
    enum peer_side side;
    bool is_lost; /* a message to it failed: it has to say hello again; a worker may still hold
                     leases */
    int64_t heard_ms;
    uint64_t unread_bytes;    /* sent since it was heard of last: what it may not have read yet */
    struct outbox *outbox;    /* what waits for it; NULL: nothing. Owned by the outboxes */
    char *name;               /* as in its hello; owned */
    struct list_link silence; /* by the time it was heard of last */
    struct peer *next;        /* in the same bucket */
    uint64_t hash;
    size_t id_bytes;
    uint8_t id[]; /* its name at the link */
};

/* `seed` keeps foreigners from choosing ids that collide. Errors: -ENOMEM. */
MUST_USE int peers_create(uint64_t seed, struct peers **ret_peers);
void peers_destroy(struct peers **peers); /* outboxes are gone before */

/* NULL when there is none. */
struct peer *peers_find(const struct peers *peers, enum peer_side side, const void *id,
                        size_t id_bytes);
struct peer *peers_by_number(const struct peers *peers, uint64_t number);

/* A peer that was not there, under a new number. `name` is copied. Errors: -ENOMEM. */
MUST_USE int peers_add(struct peers *peers, enum peer_side side, const void *id, size_t id_bytes,
                       const char *name, int64_t now_ms, struct peer **ret_peer);
/* Its outbox must be empty. */
void peers_remove(struct peers *peers, struct peer **peer);

void peers_touch(struct peers *peers, struct peer *peer, int64_t now_ms);
/* Who was heard of longest ago; NULL when the side is empty. */
struct peer *peers_most_silent(const struct peers *peers, enum peer_side side);
size_t peers_count(const struct peers *peers, enum peer_side side);
