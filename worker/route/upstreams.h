/*
 * upstreams: what one broker has said of its breakers, by upstream (a model at a provider).
 *
 * The broker decides what is called; this table is for the jobs that it had dispatched already when
 * an upstream failed, so that they do not all try it. News comes late and may get lost, so an open
 * breaker counts for no longer than the broker said it would stay so: after that the broker's word,
 * the dispatch, holds again. Bounded; no clock, no I/O.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "proto/wire.pb-c.h"

enum { UPSTREAMS_MAX = 1024, UPSTREAMS_NAME_BYTES_MAX = 255 };

struct upstreams;

struct upstream {
    char *provider, *model;
    Wire__UpstreamState__State state;
    int64_t until_ms; /* monotonic: when `state` was to end; 0: it does not by itself */
};

/* Errors: -ENOMEM. */
MUST_USE int upstreams_create(struct upstreams **ret_upstreams);
void upstreams_destroy(struct upstreams **upstreams);

/*
 * What an event's `data` says. *ret_upstream is the entry, valid until the next call; *ret_changed:
 * its state was another. Errors: -EBADMSG it is no UpstreamState; -ENOBUFS there are too many;
 * -ENOMEM.
 */
MUST_USE int upstreams_take(struct upstreams *upstreams, const void *data, size_t bytes,
                            int64_t now_ms, const struct upstream **ret_upstream,
                            bool *ret_changed);
/* A welcome's snapshot follows: what it does not name is closed. */
void upstreams_forget(struct upstreams *upstreams);

/* How long it stays open; 0: it may be called. */
int64_t upstreams_open_ms(const struct upstreams *upstreams, const char *provider,
                          const char *model, int64_t now_ms);
/* For those who look: the entries, in the order in which they were heard of. */
size_t upstreams_list(const struct upstreams *upstreams, const struct upstream **ret_items);
/* "closed", "open", "half_open", "slow_start"; "unknown" for what a newer broker may say. */
const char *upstream_state_name(Wire__UpstreamState__State state);
