#include "broker/core/hedge_budget.h"
#include <assert.h>

/* Shares are thousandths: twenty times 0.05 is a call. */
static const double ROUNDING = 1e-9;

static void add_calls(struct hedge_budget *budget, double calls)
{
    budget->calls += calls;
    budget->calls = budget->calls > HEDGE_BURST ? HEDGE_BURST : budget->calls;
}

void hedge_budget_earn_call(struct hedge_budget *budget, double share)
{
    add_calls(budget, share);
}

void hedge_budget_earn_cost(struct hedge_budget *budget, double share, uint64_t cost_nanousd)
{
    budget->nanousd += share * (double)cost_nanousd;
}

bool hedge_budget_has_call(const struct hedge_budget *budget)
{
    return budget->calls > 1.0 - ROUNDING;
}

bool hedge_budget_take(struct hedge_budget *budget, uint64_t expected_nanousd)
{
    assert(hedge_budget_has_call(budget));
    if (budget->nanousd < (double)expected_nanousd) {
        return false;
    }
    budget->calls -= 1.0;
    budget->nanousd -= (double)expected_nanousd;
    return true;
}

void hedge_budget_give_back(struct hedge_budget *budget, uint64_t expected_nanousd)
{
    add_calls(budget, 1.0);
    budget->nanousd += (double)expected_nanousd;
}

void hedge_budget_settle(struct hedge_budget *budget, uint64_t expected_nanousd,
                         uint64_t cost_nanousd)
{
    budget->nanousd += (double)expected_nanousd - (double)cost_nanousd;
}
