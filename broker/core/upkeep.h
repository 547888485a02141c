/*
 * upkeep: what the cluster takes whether jobs run or not, in sums by day of UTC: how long workers
 * and their GPUs were there, by pool; what the store holds, and how much went through the sockets.
 *
 * A worker of several pools counts in each of them in part, and at each of its brokers in part, so
 * that sums over pools, and over brokers' ledgers, are what there was. Quantities are kept, not
 * money: prices are applied when they are shown. Time that no broker runs is not counted.
 *
 * The shell tells of the store and the sockets every UPKEEP_MS or so; only then are rows recorded:
 * a crash loses what has come since. What is told then falls on the day on which it is told.
 * Belongs to the core's step; rows are kept as long as the ledger's.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/list.h"

struct config;
struct core;
struct event;
struct worker;

enum {
    UPKEEP_MS = 10000,
    UPKEEP_SHARES = 1000000, /* of a worker, or a GPU: its parts in several pools and at several brokers */
    UPKEEP_BROKERS_MAX = 256,
    UPKEEP_GPUS_MAX = 1024, /* of a worker */
};

struct upkeep {
    struct list rows;    /* as they were made */
    int64_t settled_ms;     /* time before is in rows, of workers … */
    int64_t told_ms;        /* … and of the store, which is told of less often than workers come and go */
    uint64_t traffic_bytes; /* as last told: of this run */
    int32_t keep_days;
};

void upkeep_init(struct core *core);
void upkeep_destroy(struct core *core);
void upkeep_configure(struct core *core, const struct config *config);

/* The worker is there from now on, or goes now. */
void upkeep_join(struct core *core, const struct worker *worker);
void upkeep_leave(struct core *core, const struct worker *worker);
/* EVENT_UPKEEP. Without memory for a row what would be in it is not counted. */
void upkeep_told(struct core *core, const struct event *event);
/* Errors: -EBADMSG, -ENOMEM. */
MUST_USE int upkeep_restore(struct core *core, const void *value, size_t value_bytes);
