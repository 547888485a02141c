/*
 * A number is a slot and, above it, how many peers there were before: so it is found by an index,
 * and an old number does not match the new owner of its slot.
 */
#include "broker/peers.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { SLOT_BITS = 24, SLOTS_FIRST = 64, SLOTS_MAX = 1 << SLOT_BITS };

struct peers {
    struct peer **buckets; /* as many as slots: a power of two */
    struct peer **slots;   /* by the lower bits of the number; NULL: free */
    uint32_t *free_slots;  /* a stack */
    size_t n_slots;
    size_t n_free;
    uint64_t n_ever;
    uint64_t seed;
    struct list silence[PEER_SIDES];
};

int peers_create(uint64_t seed, struct peers **ret_peers)
{
    struct peers *peers = calloc(1, sizeof(*peers));
    if (peers == NULL) {
        return -ENOMEM;
    }
    peers->seed = seed;
    for (size_t i = 0; i < PEER_SIDES; i++) {
        list_init(&peers->silence[i]);
    }
    *ret_peers = peers;
    return 0;
}

static void release(struct peer *peer)
{
    free(peer->name);
    free(peer);
}

void peers_destroy(struct peers **peers)
{
    struct peers *gone = TAKE(*peers);
    if (gone == NULL) {
        return;
    }
    for (size_t i = 0; i < gone->n_slots; i++) {
        if (gone->slots[i] != NULL) {
            release(gone->slots[i]);
        }
    }
    free(gone->buckets);
    free(gone->slots);
    free(gone->free_slots);
    free(gone);
}

static uint64_t hash_of(const struct peers *peers, enum peer_side side, const void *id,
                        size_t id_bytes)
{
    return XXH3_64bits_withSeed(id, id_bytes, peers->seed + (uint64_t)side);
}

static struct peer **bucket_of(const struct peers *peers, uint64_t hash)
{
    return &peers->buckets[hash & (peers->n_slots - 1)];
}

struct peer *peers_find(const struct peers *peers, enum peer_side side, const void *id,
                        size_t id_bytes)
{
    if (peers->n_slots == 0) {
        return NULL;
    }
    const uint64_t hash = hash_of(peers, side, id, id_bytes);
    struct peer *peer = *bucket_of(peers, hash);
    while (peer != NULL && (peer->hash != hash || peer->side != side ||
                            peer->id_bytes != id_bytes || memcmp(peer->id, id, id_bytes) != 0)) {
        peer = peer->next;
    }
    return peer;
}

struct peer *peers_by_number(const struct peers *peers, uint64_t number)
{
    const size_t slot = number & (SLOTS_MAX - 1);
    struct peer *peer = slot < peers->n_slots ? peers->slots[slot] : NULL;
    return peer != NULL && peer->number == number ? peer : NULL;
}

static void enter(struct peers *peers, struct peer *peer)
{
    struct peer **bucket = bucket_of(peers, peer->hash);
    peer->next = *bucket;
    *bucket = peer;
}

static int grow(struct peers *peers)
{
    const size_t n_slots = peers->n_slots == 0 ? SLOTS_FIRST : peers->n_slots * 2;
    struct peer **buckets = calloc(n_slots, sizeof(struct peer *));
    struct peer **slots = calloc(n_slots, sizeof(struct peer *));
    uint32_t *free_slots = calloc(n_slots, sizeof(uint32_t));
    if (n_slots > SLOTS_MAX || buckets == NULL || slots == NULL || free_slots == NULL) {
        free(buckets);
        free(slots);
        free(free_slots);
        return -ENOMEM;
    }
    const size_t n_before = peers->n_slots;
    free(peers->buckets);
    free(peers->free_slots);
    peers->buckets = buckets;
    peers->free_slots = free_slots;
    peers->n_slots = n_slots;
    for (size_t i = 0; i < n_before; i++) {
        slots[i] = peers->slots[i];
        enter(peers, slots[i]);
    }
    free(peers->slots);
    peers->slots = slots;
    for (size_t i = n_slots; i > n_before; i--) {
        free_slots[peers->n_free++] = (uint32_t)(i - 1);
    }
    return 0;
}

int peers_add(struct peers *peers, enum peer_side side, const void *id, size_t id_bytes,
              const char *name, int64_t now_ms, struct peer **ret_peer)
{
    assert(peers_find(peers, side, id, id_bytes) == NULL);
    if (peers->n_free == 0) {
        const int r = grow(peers);
        if (r < 0) {
            return r;
        }
    }
    struct peer *peer = calloc(1, sizeof(*peer) + id_bytes);
    char *name_copy = strdup(name);
    if (peer == NULL || name_copy == NULL) {
        free(peer);
        free(name_copy);
        return -ENOMEM;
    }
    const uint32_t slot = peers->free_slots[--peers->n_free];
    peer->number = ++peers->n_ever << SLOT_BITS | slot;
    peer->side = side;
    peer->name = name_copy;
    peer->heard_ms = now_ms;
    peer->hash = hash_of(peers, side, id, id_bytes);
    peer->id_bytes = id_bytes;
    memcpy(peer->id, id, id_bytes);
    peers->slots[slot] = peer;
    enter(peers, peer);
    list_append(&peers->silence[side], &peer->silence);
    *ret_peer = peer;
    return 0;
}

void peers_remove(struct peers *peers, struct peer **peer)
{
    struct peer *gone = TAKE(*peer);
    assert(gone->outbox == NULL);
    struct peer **place = bucket_of(peers, gone->hash);
    while (*place != gone) {
        place = &(*place)->next;
    }
    *place = gone->next;
    const uint32_t slot = gone->number & (SLOTS_MAX - 1);
    peers->slots[slot] = NULL;
    peers->free_slots[peers->n_free++] = slot;
    list_remove(&peers->silence[gone->side], &gone->silence);
    release(gone);
}

void peers_touch(struct peers *peers, struct peer *peer, int64_t now_ms)
{
    peer->heard_ms = now_ms;
    peer->unread_bytes = 0;
    list_remove(&peers->silence[peer->side], &peer->silence);
    list_append(&peers->silence[peer->side], &peer->silence);
}

struct peer *peers_most_silent(const struct peers *peers, enum peer_side side)
{
    struct list_link *first = list_first(&peers->silence[side]);
    return first == NULL ? NULL : CONTAINER_OF(first, struct peer, silence);
}

size_t peers_count(const struct peers *peers, enum peer_side side)
{
    return peers->silence[side].length;
}
