/*
 * hedge_budget: how many second calls a tier may make beside slow ones, and for how much.
 *
 * Both are a share: of the calls that were made, and of what they cost. It begins empty, so that at any time second calls
 * are at most share × calls, and cost at most share × cost: as far as what they cost was expected; what they cost beyond
 * that is a debt. No more than HEDGE_BURST calls are saved up. Pure.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { HEDGE_BURST = 10 };

struct hedge_budget {
    double calls, nanousd;
};

/* A first call was made. */
void hedge_budget_earn_call(struct hedge_budget *budget, double share);
/* Calls, first or second ones, have cost so much. */
void hedge_budget_earn_cost(struct hedge_budget *budget, double share, uint64_t cost_nanousd);
/* There is a call in it. */
bool hedge_budget_has_call(const struct hedge_budget *budget);
/* Takes one call, of which there is one, and what it is expected to cost. False: it costs more than there is; nothing is taken. */
bool hedge_budget_take(struct hedge_budget *budget, uint64_t expected_nanousd);
/* What was taken was not called. */
void hedge_budget_give_back(struct hedge_budget *budget, uint64_t expected_nanousd);
/* It was called, and has cost this. */
void hedge_budget_settle(struct hedge_budget *budget, uint64_t expected_nanousd, uint64_t cost_nanousd);
