/*
 * link_names: the peers of a ROUTER by the names under which they are written to.
 *
 * A name is what the peer calls itself, or a zero byte and a number if it does not. Find, add and
 * remove are O(1). The names are embedded in what they name.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/zmtp.h"

struct link_name {
    size_t bytes; /* 0: in no table */
    uint8_t id[ZMTP_IDENTITY_BYTES_MAX];
    uint64_t hash;
    struct link_name *next; /* in the same bucket */
};

struct link_names {
    struct link_name **buckets;
    size_t n_buckets; /* a power of two */
    size_t length;
    uint64_t seed; /* keeps foreigners from choosing names that collide */
    uint32_t last_number;
};

/* Errors: -ENOMEM. */
MUST_USE int link_names_init(struct link_names *names);
void link_names_finish(struct link_names *names); /* the names in it are not touched */

/* NULL when there is none. */
struct link_name *link_names_find(const struct link_names *names, const void *id, size_t bytes);
/* A name that is not there. */
void link_names_add(struct link_names *names, struct link_name *name, const void *id, size_t bytes);
/* A name that nobody has. */
void link_names_add_new(struct link_names *names, struct link_name *name);
void link_names_remove(struct link_names *names, struct link_name *name); /* if it is there */
