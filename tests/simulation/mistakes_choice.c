/* Mistakes about which model a job is given to. */
#include "broker/core/decision.h"
#include "broker/core/job.h"
#include "tests/simulation/mistakes.h"
#include "tests/simulation/mistakes_wrap.h"

static bool is_for_second; /* what is decided now is where a second call goes */

/* ---- who can answer it ---- */

REPLACES(enum choice_verdict, choice_check, const struct choice_job *job,
         const struct choice_model *model)
{
    struct choice_job changed = *job;
    if (mistake_is_on(MISTAKE_ABILITY_IGNORED)) {
        changed.abilities = 0;
    }
    if (mistake_is_on(MISTAKE_CONTEXT_IGNORED)) {
        changed.input_tokens = 0;
    }
    if (mistake_is_on(MISTAKE_HEDGE_UNFIT) && is_for_second) {
        return CHOICE_FITS;
    }
    return __real_choice_check(&changed, model);
}

REPLACES(int, decision_configure, struct core *core, const struct config *config)
{
    if (mistake_is_on(MISTAKE_RELOAD_LISTS) && core->turn > 0) {
        return 0;
    }
    int r = __real_decision_configure(core, config);
    for (size_t i = 0; i < core->tenants.length && mistake_is_on(MISTAKE_TENANT_RESIDENCY); i++) {
        core->tenant[i]->residency = 0;
    }
    return r;
}

REPLACES(bool, decision_is_hopeless, const struct core *core, const struct job *job)
{
    return !mistake_is_on(MISTAKE_HOPELESS_ACCEPTED) && __real_decision_is_hopeless(core, job);
}

REPLACES(int, core_add_tenant, struct core *core, const char *name, struct tenant **ret_tenant)
{
    int r = __real_core_add_tenant(core, name, ret_tenant);
    if (r == 0 && mistake_is_on(MISTAKE_RESTART_FREES_TENANT)) {
        (*ret_tenant)->has_rules = true;
    }
    return r;
}

static bool explains; /* a dispatch is being made, until the next decision */

REPLACES(const char *, decision_residency_name, const struct core *core, uint8_t residency)
{
    return explains && mistake_is_on(MISTAKE_LABEL_NOT_SAID)
               ? ""
               : __real_decision_residency_name(core, residency);
}

/* ---- what is made of it ---- */

REPLACES(void, decision_make_beside, struct core *core, const struct job *job,
         const struct upstream *first, struct decision *ret_decision)
{
    is_for_second = first != NULL;
    __real_decision_make_beside(core, job, mistake_is_on(MISTAKE_HEDGE_AT_SAME) ? NULL : first,
                                ret_decision);
    is_for_second = false;
}

REPLACES(void, decision_make, struct core *core, const struct job *job,
         struct decision *ret_decision)
{
    explains = false;
    __real_decision_make(core, job, ret_decision);
    if (mistake_is_on(MISTAKE_ROUTELESS_UNCHECKED) && ret_decision->length == 0) {
        ret_decision->is_hopeless = false;
    }
    if (mistake_is_on(MISTAKE_LOST_NOT_SAID)) {
        ret_decision->quality_lost = 0;
    }
    if (mistake_is_on(MISTAKE_PICKY_BLOCKS)) {
        ret_decision->is_picky = false;
    }
    if (mistake_is_on(MISTAKE_GIVEN_UP_EARLY)) {
        ret_decision->is_hopeless = ret_decision->chosen == NULL && ret_decision->is_picky;
    }
}

/* By the first, whichever was chosen. */
REPLACES(const char *, decision_explain, struct core *core, const struct job *job,
         const struct decision *decision)
{
    struct decision changed = *decision;
    explains = true;
    for (size_t i = 0; i < changed.length && mistake_is_on(MISTAKE_WHY_OF_ANOTHER); i++) {
        changed.items[i].lost = i == 0 ? LOST_NOT : LOST_ORDER;
    }
    return __real_decision_explain(core, job, &changed);
}
