/* Mistakes about what attempts cost. */
#include "broker/core/charge.h"
#include "broker/core/ledger.h"
#include "broker/core/state.h"
#include "tests/simulation/mistakes.h"
#include "tests/simulation/mistakes_wrap.h"

REPLACES(void, charge_result, struct core *core, const struct worker *worker, struct job *job,
         struct lease *lease, const struct event_attempt_result *result)
{
    struct event_attempt_result again = *result;
    if (mistake_is_on(MISTAKE_CHARGED_NOT) && core->turn % 8 == 0) {
        return;
    }
    if (mistake_is_on(MISTAKE_CHARGED_TWICE)) { /* each time under another number */
        again.made_by = (uint32_t)core->turn + 100000;
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
