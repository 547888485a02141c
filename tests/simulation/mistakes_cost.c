/* Mistakes about what attempts cost. */
#include "broker/core/budget.h"
#include "broker/core/charge.h"
#include "broker/core/ledger.h"
#include "broker/core/state.h"
#include "broker/core/upkeep.h"
#include "tests/simulation/mistakes.h"
#include "tests/simulation/mistakes_wrap.h"

REPLACES(void, charge_result, struct core *core, const struct worker *worker, struct job *job,
         struct lease *lease, const struct event_attempt_result *result)
{
    struct event_attempt_result again = *result;
    Wire__Usage usage;
    if (mistake_is_on(MISTAKE_CHARGED_NOT) && core->turn % 8 == 0) {
        return;
    }
    if (mistake_is_on(MISTAKE_CHARGED_TWICE)) { /* each time under another number */
        again.made_by = (uint32_t)core->turn + 100000;
    }
    if (mistake_is_on(MISTAKE_CHARGED_TOGETHER) && again.usage != NULL) {
        usage = *again.usage;
        usage.hedge_cost_nanousd = 0;
        again.usage = &usage;
        again.calls_length = 0;
    }
    if (mistake_is_on(MISTAKE_CHARGED_ALONE) && again.usage != NULL) {
        usage = *again.usage;
        usage.cost_nanousd -= usage.hedge_cost_nanousd;
        usage.hedge_cost_nanousd = 0;
        again.usage = &usage;
        again.calls_length = 0;
    }
    __real_charge_result(core, worker, job, lease, &again);
}

REPLACES(uint64_t, charge_batch, const struct core *core)
{
    return mistake_is_on(MISTAKE_CHARGED_EARLY) ? 0 : __real_charge_batch(core);
}

REPLACES(void, ledger_tick, struct core *core)
{
    if (!mistake_is_on(MISTAKE_LEDGER_NOT_STORED)) {
        __real_ledger_tick(core);
    }
}

REPLACES(int, ledger_restore, struct core *core, const void *value, size_t value_bytes)
{
    return mistake_is_on(MISTAKE_RESTART_LEDGER) ? 0
                                                 : __real_ledger_restore(core, value, value_bytes);
}

REPLACES(int, charge_restore, struct core *core, const void *key, size_t key_bytes,
         const void *value, size_t value_bytes)
{
    return mistake_is_on(MISTAKE_RESTART_CHARGES)
               ? 0
               : __real_charge_restore(core, key, key_bytes, value, value_bytes);
}

REPLACES(void, budget_reserve, struct core *core, struct budget_scope scope, uint64_t nanousd)
{
    if (!mistake_is_on(MISTAKE_BUDGET_UNRESERVED)) {
        __real_budget_reserve(core, scope, nanousd);
    }
}

REPLACES(void, budget_release, struct core *core, struct budget_scope scope, uint64_t nanousd)
{
    if (!mistake_is_on(MISTAKE_BUDGET_KEPT_RESERVED) || core->turn % 8 != 0) {
        __real_budget_release(core, scope, nanousd);
    }
}

REPLACES(bool, budget_has_second, struct core *core, const struct job *job,
         const struct upstream *upstream)
{
    return mistake_is_on(MISTAKE_BUDGET_SECOND_UNRESERVED) ||
           __real_budget_has_second(core, job, upstream);
}

REPLACES(void, charge_open_second, struct core *core, struct lease *lease)
{
    if (!mistake_is_on(MISTAKE_BUDGET_SECOND_UNRESERVED)) {
        __real_charge_open_second(core, lease);
    }
}

REPLACES(int, budget_restore, struct core *core, const void *value, size_t value_bytes)
{
    return mistake_is_on(MISTAKE_BUDGET_NOT_STORED)
               ? 0
               : __real_budget_restore(core, value, value_bytes);
}

/* ---- infrastructure ---- */

REPLACES(void, upkeep_leave, struct core *core, const struct worker *worker)
{
    if (!mistake_is_on(MISTAKE_UPKEEP_NEVER_LEAVES)) {
        __real_upkeep_leave(core, worker);
    }
}

REPLACES(void, upkeep_told, struct core *core, const struct event *event)
{
    if (mistake_is_on(MISTAKE_UPKEEP_STORED_IN_PART)) {
        core->upkeep.told_ms = core->upkeep.settled_ms;
    }
    if (mistake_is_on(MISTAKE_UPKEEP_MOVED_TWICE)) {
        core->upkeep.traffic_bytes = 0;
    }
    __real_upkeep_told(core, event);
}

REPLACES(int, upkeep_restore, struct core *core, const void *value, size_t value_bytes)
{
    return mistake_is_on(MISTAKE_RESTART_UPKEEP) ? 0
                                                 : __real_upkeep_restore(core, value, value_bytes);
}
