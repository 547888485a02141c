#include "broker/core/retry_budget.h"

static void advance(struct retry_budget *budget, const struct config_retries *config,
                    double first_attempts, int64_t now_ms)
{
    const double burst = config->burst;
    if (now_ms > budget->at_ms) {
        budget->level += (double)(now_ms - budget->at_ms) * config->least_per_min / 60000.0;
        budget->at_ms = now_ms;
    }
    budget->level += first_attempts * config->share_permille / 1000.0;
    budget->level = budget->level > burst ? burst : budget->level;
}

void retry_budget_init(struct retry_budget *budget, const struct config_retries *config,
                       int64_t now_ms)
{
    *budget = (struct retry_budget){.level = config->burst, .at_ms = now_ms};
}

void retry_budget_credit(struct retry_budget *budget, const struct config_retries *config,
                         int64_t now_ms)
{
    advance(budget, config, 1.0, now_ms);
}

bool retry_budget_take(struct retry_budget *budget, const struct config_retries *config,
                       int64_t now_ms)
{
    advance(budget, config, 0.0, now_ms);
    if (budget->level < 1.0) {
        return false;
    }
    budget->level -= 1.0;
    return true;
}
