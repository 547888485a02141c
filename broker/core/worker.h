/*
 * worker: who runs jobs: its credit and its slots by tier.
 *
 * A worker may be given a job of a tier while its free credit exceeds the slots that are reserved for other tiers and not
 * used by them. For each pool it serves and each tier it has a seat; seats that could take a job now stand in
 * their lane's list, so that finding a worker is O(1). worker_refresh() keeps them right; whatever changes credit, slots or
 * state ends with it.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "broker/core/state.h"

struct worker_seat {
    struct list_link link; /* in lane.available */
    struct lane *lane;
    struct worker *worker;
    bool is_listed;
};

struct worker {
    struct table_link by_peer, by_name;
    struct list_link heard_link;
    uint64_t peer;
    char *name;
    int64_t heard_ms;
    uint32_t slots;
    uint32_t gpus, brokers;  /* as it said: what it has, and how many brokers it serves */
    uint64_t credit_total;   /* as last told */
    uint64_t dispatched;     /* since its hello */
    bool is_draining;        /* it said so */
    bool is_set_aside;       /* deferred or unreachable: until it gives credit or a sign of life */
    bool is_held, is_drained; /* paused by an operator */
    uint32_t failures_in_a_row; /* of its calls, to any upstream */
    const struct upstream *failing_at; /* the last of them … */
    int64_t failing_since_ms;   /* … and since when there */
    int64_t aside_until_ms;  /* its calls failed while others' were answered; 0: no */
    struct list leases;
    uint64_t evidence_told;  /* classes up to this number, of those that were there when it came … */
    uint64_t evidence_until; /* … which is this one: cache_evidence.c */
    uint32_t suspects;       /* leases of jobs that may be what ends workers */
    uint32_t used[CONFIG_TIERS_MAX];     /* leases by tier */
    uint32_t reserved[CONFIG_TIERS_MAX]; /* slots by tier */
    uint64_t free_counted;   /* its part of core.slots_free */
    struct pool **pools;
    size_t pools_length;
    size_t seats_length;
    struct worker_seat seats[];
};

uint64_t worker_peer_hash(const struct table_link *link, uint64_t seed);
uint64_t worker_name_hash(const struct table_link *link, uint64_t seed);

/* Events. A worker that is not known is told to say hello. */
void worker_hello(struct core *core, const struct event *event);
void worker_credit(struct core *core, const struct event *event);
void worker_heartbeat(struct core *core, const struct event *event);
void worker_draining(struct core *core, const struct event *event);
void worker_gone(struct core *core, const struct event *event);
void worker_undeliverable(struct core *core, const struct event *event);

struct worker *worker_find(const struct core *core, uint64_t peer); /* NULL: unknown */
/* The same, but tells an unknown peer to say hello, and notes that this one was heard. */
struct worker *worker_heard(struct core *core, uint64_t peer);
struct worker *worker_find_name(const struct core *core, const char *name);
uint64_t worker_free(const struct worker *worker);
void worker_refresh(struct core *core, struct worker *worker);
void worker_set_aside(struct core *core, struct worker *worker);
/* It gets no jobs for so long, whatever it says. */
void worker_set_aside_for(struct core *core, struct worker *worker, int64_t for_ms);
/* Takes back those whose time is over. */
void worker_take_back(struct core *core);
/* After core_reconfigure(). */
void worker_reserve_slots(struct core *core, struct worker *worker);
void worker_destroy_all(struct core *core);

/* Forgets workers that were silent for a lease's time, by when all they held is lost. */
void worker_forget_silent(struct core *core);
int64_t worker_next_deadline_ms(const struct core *core);
