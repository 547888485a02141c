/*
 * hedge: the second call of an attempt, beside its first, at another provider.
 *
 * The first of the two to answer counts, of a stream the first to send a token: from then on nothing of
 * the other is read, since it is ended at once. What the attempt holds of a call (its model, its
 * provider, its report) is that of the one that counts: a second one that does changes places with the
 * first. Made by call_stage.h, released with the attempt.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/attributes.h"
#include "worker/attempt.h"

struct router_choice;
struct telemetry;

struct hedge {
    struct attempt *attempt; /* not owned */
    char *model, *provider_model, *provider_name;
    struct price price;
    uint32_t max_tokens_default;
    uint32_t quality_lost;
    bool is_stand_in;          /* its answer is for this job alone */
    struct provider *provider; /* not owned */
    struct provider_call *call; /* NULL: it has ended */
    struct call_report report;
    int64_t token_ns;        /* as the attempt's */
    bool has_changed_places; /* what is here is of the first */
};

/* For a call that is to be begun: nothing is yet. Errors: -ENOMEM. */
MUST_USE int hedge_create(struct attempt *attempt, const struct router_choice *choice,
                          struct hedge **ret_hedge);
/* Its call must have ended. */
void hedge_destroy(struct hedge **hedge);
/* It was begun: says so in the attempt's router_reason, in the broker's words; without memory it does not. */
void hedge_explain(struct attempt *attempt, const struct hedge *hedge);
/* The other call of the attempt runs. */
bool hedge_is_running(const struct attempt *attempt);
/* From now on the attempt is about the other call. */
void hedge_change_places(struct attempt *attempt);
/*
 * The attempt is over. Estimates what its other call, if it had one and that was cut off, has used: so many tokens of
 * prompt, and what had come of an answer. Adds it to the attempt's cost.
 */
void hedge_account(struct attempt *attempt, struct telemetry *telemetry, uint64_t input_tokens);
