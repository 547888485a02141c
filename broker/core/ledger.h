/*
 * ledger: what was spent and saved, in sums by day, tenant, tier, model and provider.
 *
 * Days are UTC's: of the time when the broker heard of a call. A row is written in the same batch
 * as what changed it, at the end of the turn, so that sums and conclusions are on the disk together
 * or not at all. At most `rows_max` rows are kept, and those of `keep_days`; what has no row of its
 * own is added to one row of its day that names nobody, so that totals stay exact. The attempts
 * that are booked, and each once, are charge.h's.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/core.h"
#include "broker/core/names.h"
#include "broker/core/table.h"
#include "common/attributes.h"
#include "common/list.h"

struct config;

/* Of tenants, and of each of the others; further ones are not known. */
enum { LEDGER_NAMES_MAX = 16384 };

struct ledger {
    struct table rows;      /* by day and names */
    struct list by_day;     /* about the oldest first */
    struct row *spare; /* for the first row, when there is no memory for it; NULL: used */
    struct list unrecorded; /* rows that have changed since they were written */
    struct names names[4];  /* of tenants, tiers, models, providers */
    uint64_t rows_max;
    int32_t keep_days;
    int32_t swept_day;      /* older days were forgotten then */
    struct core_cost total; /* since start */
};

/* Who is charged, and what for. Empty: not known. */
struct ledger_key {
    const char *tenant, *tier, *model, *provider;
};

uint64_t ledger_hash(const struct table_link *link, uint64_t seed);
MUST_USE int ledger_init(struct core *core, uint64_t seed); /* Errors: -ENOMEM */
void ledger_destroy(struct core *core);
void ledger_configure(struct core *core, const struct config *config);

/* Adds to the row of `day`. Without memory for a row it is added to the one that names nobody. */
void ledger_add(struct core *core, int32_t day, const struct ledger_key *key,
                const struct core_cost *cost);
/* Takes an estimate back, as far as its row is kept; without one, from the row that names nobody. */
void ledger_take_back(struct core *core, int32_t day, const struct ledger_key *key,
                      const struct core_cost *cost);

/* Writes what has changed, and forgets days that are too old. */
void ledger_tick(struct core *core);
/* Errors: -EBADMSG; -ENOMEM; -ENOBUFS no process has written so many names. */
MUST_USE int ledger_restore(struct core *core, const void *value, size_t value_bytes);
