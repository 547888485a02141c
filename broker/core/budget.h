/*
 * budget: what tenants and tiers may spend in a day and in a month (budgets[]), and what follows
 * when it is spent.
 *
 * Each job belongs to three purses (purse.h): its tenant's, its tier's, and that of its tier within
 * its tenant. What is spent is added to each, whether it has a limit or not, so that a limit that
 * is configured later counts the whole day. There is one writer, the core; a purse is recorded in
 * the batch of what was spent.
 *
 * At the door it is refused if what is left of a limit, reservations not counted, is less than its
 * worst case with the cheapest candidate, or, where their order decides, with the first. So
 * attempts in flight never have a job refused: what they have reserved may come back.
 *
 * At dispatch the worst case with the chosen candidate has to fit beside what is reserved. From the
 * soft share on, and where the chosen one does not fit, the cheapest that may be called now takes
 * its place, if the route lets models be chosen. A job that does not fit waits: for attempts in
 * flight to be settled, or for the next day or month if its deadline allows that; otherwise it
 * expires at once, with the code "budget". Where one that has failed it fits what is left, and no
 * other one will, that one is tried again.
 *
 * The worst case is a token for each byte of the payload, all of the dearest class of input, and
 * max_tokens of output (the model's max_tokens_default where none was given), at the standard
 * service tier. Limits are kept to the nano-dollar as long as no call is charged more than that.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/core.h"
#include "broker/core/purse.h"
#include "common/attributes.h"
#include "common/config.h"
#include "common/list.h"

struct decision;
struct job;
struct tenant;
struct upstream;

struct budget_purse {
    struct purse purse;
    struct list_link unrecorded; /* while next is not NULL */
    const char *tenant, *tier;   /* NULL: all; names of the core's */
};

struct budgets {
    struct budget_purse tier[CONFIG_TIERS_MAX]; /* of all tenants; theirs are in struct tenant */
    struct list unrecorded;
    bool has_limits;   /* any */
    bool was_restored; /* there were records: attempts from before may still be reported */
    uint32_t looks;       /* of jobs that wait for reservations, lately */
    int64_t looks_end_ms; /* until then they are counted on */
    struct core_budget_counts counts;
};

/* A scope: indices of names; BUDGET_NOBODY: not known, which leaves its purses out. */
enum { BUDGET_NOBODY = UINT16_MAX };
struct budget_scope {
    uint16_t tenant, tier;
};
struct budget_scope budget_scope_of(const struct job *job);

void budget_init(struct core *core);
/* Of the tenant, and of each tier within it: so many, in tenant->purses. */
size_t budget_purses_length(const struct core *core);
void budget_init_tenant(const struct core *core, struct tenant *tenant);
/* After tenants and tiers. */
void budget_configure(struct core *core, const struct config *config);

bool budget_is_limited(struct core *core, struct budget_scope scope);
/* The worst case of an attempt. NULL: the dearest candidate of its queue; it has none, so that a
 * worker chooses: the dearest of all. */
uint64_t budget_worst_nanousd(const struct core *core, const struct job *job,
                              const struct upstream *upstream);
/* A second call, which nobody needs, is made with `upstream` only where the soft share is not
 * reached, and where its worst case fits beside what is reserved. */
bool budget_has_second(struct core *core, const struct job *job, const struct upstream *upstream);
void budget_spend(struct core *core, struct budget_scope scope, uint64_t nanousd);
/* What was spent on `day` was an estimate, and too much. */
void budget_refund(struct core *core, struct budget_scope scope, uint64_t nanousd, int32_t day);
void budget_reserve(struct core *core, struct budget_scope scope, uint64_t nanousd);
void budget_release(struct core *core, struct budget_scope scope, uint64_t nanousd);

/* At the door. False: *ret_text says why, and *ret_wait_ms until when; 0: a limit is too small for
 * it, ever. */
bool budget_admits(struct core *core, const struct job *job, const char **ret_text,
                   int64_t *ret_wait_ms);
/*
 * At dispatch: for a job, READY or LOADED, and its decision, which may get another choice. False:
 * it waits, or is over.
 */
bool budget_passes(struct core *core, struct job *job, struct decision *decision);

/* Writes what has changed. */
void budget_tick(struct core *core);
/* Errors: -EBADMSG, -ENOMEM, -ENOBUFS. */
MUST_USE int budget_restore(struct core *core, const void *value, size_t value_bytes);
