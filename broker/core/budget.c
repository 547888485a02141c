#include "broker/core/budget.h"
#include <stdio.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/conclude.h"
#include "broker/core/decision.h"
#include "broker/core/gate.h"
#include "broker/core/lane.h"
#include "broker/core/record.h"
#include "broker/core/state.h"
#include "broker/core/upstream.h"
#include "common/decimals.h"

enum {
    PURSES = 3,
    LOOK_MS = 50,            /* until a job that waits for reservations looks again … */
    LOOKS_PER_STEP = 1024,   /* … and so much longer for each so many looks … */
    LOOKS_OF_MS = 1000,      /* … in this time: a million that wait are no load */
    REFILL_SPREAD_MS = 5000, /* after a window has begun: not all of them at once */
    KEY_BYTES = 6 + 8,
    TIME_BYTES = 48,
    USD_BYTES = 32,
    NANOUSD_A_USD = 1000000000,
};

/* ---- purses ---- */

static void init_purse(struct budget_purse *purse, const char *tenant, const char *tier)
{
    purse_init(&purse->purse);
    purse->tenant = tenant;
    purse->tier = tier;
}

void budget_init(struct core *core)
{
    list_init(&core->budgets.unrecorded);
}

size_t budget_purses_length(const struct core *core)
{
    return 1 + core->tiers_length;
}

/* `tier` NULL: of the tenant in all of them. */
static struct budget_purse *purse_of(struct tenant *tenant, const struct name *tier)
{
    return &tenant->purses[tier == NULL ? 0 : 1 + tier->index];
}

void budget_init_tenant(const struct core *core, struct tenant *tenant)
{
    init_purse(purse_of(tenant, NULL), tenant->name->text, NULL);
    for (size_t i = 0; i < core->tiers_length; i++) {
        const struct name *tier = core->tier[i].name;
        init_purse(purse_of(tenant, tier), tenant->name->text, tier->text);
    }
}

/* Returns how many. */
static size_t find(struct core *core, struct budget_scope scope,
                   struct budget_purse *ret_purses[PURSES])
{
    struct tenant *tenant = scope.tenant == BUDGET_NOBODY ? NULL : core->tenant[scope.tenant];
    const struct name *tier = scope.tier == BUDGET_NOBODY ? NULL : core->tier[scope.tier].name;
    size_t length = 0;
    if (tenant != NULL) {
        ret_purses[length++] = purse_of(tenant, NULL);
    }
    if (tier != NULL) {
        ret_purses[length++] = &core->budgets.tier[tier->index];
    }
    if (tenant != NULL && tier != NULL) {
        ret_purses[length++] = purse_of(tenant, tier);
    }
    return length;
}

struct budget_scope budget_scope_of(const struct job *job)
{
    return (struct budget_scope){.tenant = job_tenant(job)->name->index,
                                 .tier = job_tier(job)->index};
}

/* ---- configuration ---- */

static void forget_limits(struct budget_purse *purse)
{
    purse->purse.daily_max_nanousd = purse->purse.monthly_max_nanousd = UINT64_MAX;
    purse->purse.soft_permille = 1000;
}

/* Of several for one scope the tightest counts. */
static void limit(struct budget_purse *purse, const struct config_budget *given)
{
    struct purse *limits = &purse->purse;
    limits->daily_max_nanousd = given->daily_nanousd < limits->daily_max_nanousd
                                    ? given->daily_nanousd
                                    : limits->daily_max_nanousd;
    limits->monthly_max_nanousd = given->monthly_nanousd < limits->monthly_max_nanousd
                                      ? given->monthly_nanousd
                                      : limits->monthly_max_nanousd;
    limits->soft_permille =
        given->soft_permille < limits->soft_permille ? given->soft_permille : limits->soft_permille;
}

/* Of this tenant and tier: "" all. NULL: there is none. */
static struct budget_purse *purse_named(struct core *core, const char *tenant, const char *tier)
{
    const struct name *of_tenant = names_find(&core->tenants, tenant);
    const struct name *of_tier = names_find(&core->tiers, tier);
    const bool is_known = (of_tenant != NULL || tenant[0] == '\0') &&
                          (of_tier != NULL || tier[0] == '\0') &&
                          (of_tenant != NULL || of_tier != NULL);
    return !is_known           ? NULL
           : of_tenant == NULL ? &core->budgets.tier[of_tier->index]
                               : purse_of(core->tenant[of_tenant->index], of_tier);
}

void budget_configure(struct core *core, const struct config *config)
{
    struct budgets *budgets = &core->budgets;
    for (size_t i = 0; i < core->tiers_length; i++) {
        if (budgets->tier[i].tier == NULL) {
            init_purse(&budgets->tier[i], NULL, core->tier[i].name->text);
        }
        forget_limits(&budgets->tier[i]);
    }
    for (size_t i = 0; i < core->tenants.length; i++) {
        for (size_t j = 0; j < budget_purses_length(core); j++) {
            forget_limits(&core->tenant[i]->purses[j]);
        }
    }
    budgets->has_limits = config->budgets_length > 0;
    for (size_t i = 0; i < config->budgets_length; i++) {
        const struct config_budget *given = &config->budgets[i];
        struct budget_purse *purse = purse_named(core, given->tenant, given->tier);
        if (purse != NULL) { /* else the configuration's check refuses it; nobody can spend there */
            limit(purse, given);
        }
    }
}

/* ---- spending ---- */

bool budget_is_limited(struct core *core, struct budget_scope scope)
{
    struct budget_purse *purses[PURSES];
    const size_t length = core->budgets.has_limits ? find(core, scope, purses) : 0;
    for (size_t i = 0; i < length; i++) {
        if (purse_is_limited(&purses[i]->purse)) {
            return true;
        }
    }
    return false;
}

static void changed(struct core *core, struct budget_purse *purse)
{
    if (purse->unrecorded.next == NULL) {
        list_append(&core->budgets.unrecorded, &purse->unrecorded);
    }
}

void budget_spend(struct core *core, struct budget_scope scope, uint64_t nanousd)
{
    struct budget_purse *purses[PURSES];
    const size_t length = find(core, scope, purses);
    for (size_t i = 0; i < length; i++) {
        purse_spend(&purses[i]->purse, nanousd, core->unix_ms);
        changed(core, purses[i]);
    }
}

void budget_refund(struct core *core, struct budget_scope scope, uint64_t nanousd, int32_t day)
{
    struct budget_purse *purses[PURSES];
    const size_t length = find(core, scope, purses);
    for (size_t i = 0; i < length; i++) {
        purse_refund(&purses[i]->purse, nanousd, day, core->unix_ms);
        changed(core, purses[i]);
    }
}

void budget_reserve(struct core *core, struct budget_scope scope, uint64_t nanousd)
{
    struct budget_purse *purses[PURSES];
    const size_t length = find(core, scope, purses);
    for (size_t i = 0; i < length; i++) {
        purse_reserve(&purses[i]->purse, nanousd);
    }
}

void budget_release(struct core *core, struct budget_scope scope, uint64_t nanousd)
{
    struct budget_purse *purses[PURSES];
    const size_t length = find(core, scope, purses);
    for (size_t i = 0; i < length; i++) {
        purse_release(&purses[i]->purse, nanousd);
    }
}

/* ---- the worst case ---- */

static uint64_t worst_with(const struct job *job, const struct upstream *upstream)
{
    const uint64_t output = job->max_tokens > 0 ? job->max_tokens : upstream->max_tokens_default;
    return price_worst_nanousd(&upstream->price, job->payload_bytes, output);
}

static uint64_t worst_of_all(const struct job *job, struct upstream *const *upstreams,
                             size_t length)
{
    uint64_t most = 0;
    for (size_t i = 0; i < length; i++) {
        const uint64_t worst = worst_with(job, upstreams[i]);
        most = worst > most ? worst : most;
    }
    return most;
}

uint64_t budget_worst_nanousd(const struct core *core, const struct job *job,
                              const struct upstream *upstream)
{
    if (upstream != NULL) {
        return worst_with(job, upstream);
    }
    const struct candidates *candidates = upstream_candidates(core, job->flow->queue);
    return candidates->length > 0 ? worst_of_all(job, candidates->items, candidates->length)
                                  : worst_of_all(job, core->upstreams, core->upstreams_length);
}

/* With the cheapest that can answer it, now or later; where their order decides, with the first of
 * them; where a worker chooses, with the dearest. */
static uint64_t least_worst(const struct core *core, const struct job *job,
                            const struct decision *decision)
{
    uint64_t least = UINT64_MAX;
    if (decision->length == 0) {
        return budget_worst_nanousd(core, job, NULL);
    }
    for (size_t i = 0; i < decision->length && (decision->is_scored || least == UINT64_MAX); i++) {
        if (decision->items[i].lost < LOST_CANNOT) {
            const uint64_t worst = worst_with(job, decision->items[i].upstream);
            least = worst < least ? worst : least;
        }
    }
    return least;
}

/* ---- what is left ---- */

/* The purse in whose way it is, that refills last; NULL: none. Gives: *ret_refills_unix_ms,
 * INT64_MAX never. */
static struct budget_purse *too_small(struct core *core, struct budget_scope scope,
                                      uint64_t nanousd, int64_t *ret_refills_unix_ms)
{
    struct budget_purse *purses[PURSES];
    struct budget_purse *last = NULL;
    const size_t length = find(core, scope, purses);
    int64_t refills = core->unix_ms;
    for (size_t i = 0; i < length; i++) {
        const int64_t at = purse_refills_unix_ms(&purses[i]->purse, nanousd, core->unix_ms);
        if (at > refills) {
            refills = at;
            last = purses[i];
        }
    }
    *ret_refills_unix_ms = refills;
    return last;
}

static bool fits(struct core *core, struct budget_scope scope, uint64_t nanousd)
{
    struct budget_purse *purses[PURSES];
    const size_t length = find(core, scope, purses);
    for (size_t i = 0; i < length; i++) {
        if (nanousd > purse_free_nanousd(&purses[i]->purse, core->unix_ms)) {
            return false;
        }
    }
    return true;
}

static bool is_soft(struct core *core, struct budget_scope scope)
{
    struct budget_purse *purses[PURSES];
    const size_t length = find(core, scope, purses);
    for (size_t i = 0; i < length; i++) {
        if (purse_spares(&purses[i]->purse, core->unix_ms)) {
            return true;
        }
    }
    return false;
}

bool budget_has_second(struct core *core, const struct job *job, const struct upstream *upstream)
{
    const struct budget_scope scope = budget_scope_of(job);
    return !budget_is_limited(core, scope) ||
           (!is_soft(core, scope) && fits(core, scope, budget_worst_nanousd(core, job, upstream)));
}

/* Windows begin at midnight. */
static const char *time_text(int64_t unix_ms, char ret_text[TIME_BYTES])
{
    const int32_t month = purse_month_of(unix_ms);
    const int32_t first = purse_day_of(purse_month_begins_unix_ms(month));
    (void)snprintf(ret_text, TIME_BYTES, "%d-%02d-%02d 00:00 UTC", 1970 + month / 12,
                   month % 12 + 1, purse_day_of(unix_ms) - first + 1);
    return ret_text;
}

/* "the budget of tenant a in tier b", whichever it is of. */
static void say_whose(const struct budget_purse *purse, char *ret_text, size_t bytes)
{
    if (purse->tenant == NULL) {
        (void)snprintf(ret_text, bytes, "the budget of the tier %.64s", purse->tier);
    } else if (purse->tier == NULL) {
        (void)snprintf(ret_text, bytes, "the budget of the tenant %.64s", purse->tenant);
    } else {
        (void)snprintf(ret_text, bytes, "the budget of the tenant %.64s for the tier %.64s",
                       purse->tenant, purse->tier);
    }
}

/* "0.000012000" */
static const char *usd_text(uint64_t nanousd, char ret_text[USD_BYTES])
{
    (void)snprintf(ret_text, USD_BYTES, "%llu.%09llu",
                   (unsigned long long)(nanousd / NANOUSD_A_USD),
                   (unsigned long long)(nanousd % NANOUSD_A_USD));
    return ret_text;
}

/* "daily_usd 0.05": the limit that is smaller, as it is written in the configuration. */
static void say_limit(const struct purse *purse, uint64_t nanousd, char *ret_text, size_t bytes)
{
    const bool is_daily = nanousd > purse->daily_max_nanousd;
    const uint64_t nanousd_max = is_daily ? purse->daily_max_nanousd : purse->monthly_max_nanousd;
    char usd[DECIMALS_BYTES];
    (void)snprintf(ret_text, bytes, "%s %s", is_daily ? "daily_usd" : "monthly_usd",
                   decimals_format(nanousd_max, 9, usd));
}

/* With the numbers that it follows from, so that it can be checked. */
static const char *complaint(struct core *core, struct budget_purse *purse, uint64_t nanousd,
                             int64_t refills_unix_ms)
{
    char whose[192];
    char when[TIME_BYTES];
    char worst[USD_BYTES];
    char left[USD_BYTES];
    char reserved[USD_BYTES];
    say_whose(purse, whose, sizeof(whose));
    usd_text(nanousd, worst);
    if (refills_unix_ms == INT64_MAX) {
        char limit_text[64];
        say_limit(&purse->purse, nanousd, limit_text, sizeof(limit_text));
        return effects_format(
            core->effects,
            "%s (%s) is smaller than what this job may cost (%s USD); ask for fewer "
            "max_tokens or a cheaper model, or raise the budget",
            whose, limit_text, worst);
    }
    return effects_format(
        core->effects,
        "%s has too little left (%s USD, attempts in flight may take %s of it) for what this job "
        "may cost (%s USD); it is refilled at %s",
        whose, usd_text(purse_left_nanousd(&purse->purse, core->unix_ms), left),
        usd_text(purse->purse.reserved_nanousd, reserved), worst, time_text(refills_unix_ms, when));
}

/* ---- at the door ---- */

bool budget_admits(struct core *core, const struct job *job, const char **ret_text,
                   int64_t *ret_wait_ms)
{
    const struct budget_scope scope = budget_scope_of(job);
    if (!budget_is_limited(core, scope)) {
        return true;
    }
    struct decision decision;
    decision_make(core, job, &decision);
    const uint64_t worst = least_worst(core, job, &decision);
    int64_t refills;
    struct budget_purse *purse = too_small(core, scope, worst, &refills);
    if (purse == NULL) {
        return true;
    }
    core->budgets.counts.refused++;
    *ret_text = complaint(core, purse, worst, refills);
    *ret_wait_ms = refills == INT64_MAX ? 0 : refills - core->unix_ms;
    return false;
}

/* ---- at dispatch ---- */

/* Notes it once, when it begins and when it is over. */
static bool spares(struct core *core, struct budget_scope scope)
{
    struct budget_purse *purses[PURSES];
    const size_t length = find(core, scope, purses);
    bool any = false;
    for (size_t i = 0; i < length; i++) {
        const bool is_soft = purse_spares(&purses[i]->purse, core->unix_ms);
        if (is_soft != purses[i]->purse.is_soft) {
            char whose[192];
            purses[i]->purse.is_soft = is_soft;
            say_whose(purses[i], whose, sizeof(whose));
            core_note(core, is_soft ? NOTE_BUDGET_SOFT : NOTE_BUDGET_WIDE, NULL, whose, "", 0);
        }
        any |= is_soft;
    }
    return any;
}

static struct decision_item *cheapest_now(const struct job *job, struct decision *decision)
{
    struct decision_item *cheapest = NULL;
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < decision->length; i++) {
        struct decision_item *item = &decision->items[i];
        const bool may_be_called =
            item->lost == LOST_NOT || item->lost == LOST_SCORE || item->lost == LOST_PREFIX;
        const uint64_t worst = may_be_called ? worst_with(job, item->upstream) : UINT64_MAX;
        /* Of equally cheap ones the chosen. */
        if (worst < least || (worst == least && item->lost == LOST_NOT)) {
            least = worst;
            cheapest = item;
        }
    }
    return cheapest;
}

static void choose_instead(struct decision *decision, struct decision_item *item)
{
    for (size_t i = 0; i < decision->length; i++) {
        struct decision_item *other = &decision->items[i];
        if (other->lost == LOST_NOT && other != item) {
            other->lost = LOST_BUDGET;
            decision->is_downgraded = true;
        }
    }
    item->lost = LOST_NOT;
    decision->quality_lost = decision_lost_with(decision, item);
    decision->chosen = item->upstream;
}

static bool fits_chosen(struct core *core, const struct job *job, const struct decision *decision)
{
    return fits(core, budget_scope_of(job), budget_worst_nanousd(core, job, decision->chosen));
}

static void wait_until(struct core *core, struct job *job, int64_t at_ms)
{
    if (job->place == PLACE_READY) {
        lane_keep_turn(job);
    }
    job_release_payload(core, job);
    job_wait_until(core, job, at_ms);
    job->flags |= JOB_WAITS_FOR_BUDGET;
}

static void wait_for_others(struct core *core, struct job *job)
{
    const uint32_t looks = core->budgets.looks++;
    core->budgets.counts.waited++;
    wait_until(core, job,
               core->now_ms + LOOK_MS * (1 + (int64_t)(looks / LOOKS_PER_STEP)) +
                   (int64_t)core_random_below(core, LOOK_MS));
}

static void expire(struct core *core, struct job *job, const char *text)
{
    core->budgets.counts.expired++;
    conclude(core, job,
             &(struct outcome){.state = WIRE__JOB_STATE__JOB_STATE_EXPIRED,
                               .error_code = "budget",
                               .error_text = text});
}

/* What fits without reservations may be one that has failed the job: where the chosen one does not,
 * the round is over. */
static void wait_here(struct core *core, struct job *job, const struct decision *decision)
{
    int64_t refills;
    const uint64_t worst = budget_worst_nanousd(core, job, decision->chosen);
    if (job->tried == 0 || too_small(core, budget_scope_of(job), worst, &refills) == NULL) {
        wait_for_others(core, job);
        return;
    }
    core->budgets.counts.waited++;
    job->tried = 0;
    wait_until(core, job, gate_next_round_ms(core, job));
}

static void wait_or_expire(struct core *core, struct job *job, const struct decision *decision)
{
    const uint64_t worst = least_worst(core, job, decision);
    int64_t refills;
    struct budget_purse *purse = too_small(core, budget_scope_of(job), worst, &refills);
    if (purse == NULL) {
        wait_here(core, job, decision);
        return;
    }
    const int64_t in_ms = refills == INT64_MAX ? INT64_MAX : refills - core->unix_ms;
    if (in_ms >= job->deadline_ms - core->now_ms) {
        expire(core, job, complaint(core, purse, worst, refills));
        return;
    }
    core->budgets.counts.waited++;
    wait_until(core, job,
               core->now_ms + in_ms + (int64_t)core_random_below(core, REFILL_SPREAD_MS));
}

bool budget_passes(struct core *core, struct job *job, struct decision *decision)
{
    const struct budget_scope scope = budget_scope_of(job);
    if (!budget_is_limited(core, scope)) {
        return true;
    }
    if (core->budgets.was_restored && core->now_ms < core->reclaim_until_ms) {
        wait_until(core, job,
                   core->reclaim_until_ms); /* what runs since before is not all known yet */
        return false;
    }
    struct decision_item *cheapest = decision->is_scored ? cheapest_now(job, decision) : NULL;
    if (cheapest != NULL && (spares(core, scope) || !fits_chosen(core, job, decision))) {
        choose_instead(decision, cheapest);
    }
    if (fits_chosen(core, job, decision)) {
        return true;
    }
    wait_or_expire(core, job, decision);
    return false;
}

/* ---- records ---- */

static void write_key(const struct budget_purse *purse, uint8_t ret_key[KEY_BYTES])
{
    static const char head[] = {'b', 'u', 'd', 'g', 'e', 't'}; /* without an end */
    const char *tenant = purse->tenant == NULL ? "" : purse->tenant;
    const char *tier = purse->tier == NULL ? "" : purse->tier;
    const uint64_t hash =
        XXH3_64bits_withSeed(tier, strlen(tier), XXH3_64bits(tenant, strlen(tenant)));
    memcpy(ret_key, head, sizeof(head));
    memcpy(ret_key + 6, &hash, sizeof(hash));
}

static void record(struct core *core, struct budget_purse *purse)
{
    uint8_t key[KEY_BYTES];
    Record__BudgetRecord message = RECORD__BUDGET_RECORD__INIT;
    list_remove(&core->budgets.unrecorded, &purse->unrecorded);
    message.tenant = purse->tenant == NULL ? (char *)"" : (char *)purse->tenant;
    message.tier = purse->tier == NULL ? (char *)"" : (char *)purse->tier;
    message.day = (uint32_t)purse->purse.day;
    message.month = (uint32_t)purse->purse.month;
    message.day_nanousd = purse->purse.day_nanousd;
    message.month_nanousd = purse->purse.month_nanousd;
    write_key(purse, key);
    core_put_record(core, STORE_META, key, sizeof(key), &message.base);
}

void budget_tick(struct core *core)
{
    if (core->now_ms >= core->budgets.looks_end_ms) {
        core->budgets.looks = 0;
        core->budgets.looks_end_ms = core->now_ms + LOOKS_OF_MS;
    }
    while (!list_is_empty(&core->budgets.unrecorded)) {
        record(core, CONTAINER_OF(list_first(&core->budgets.unrecorded), struct budget_purse,
                                  unrecorded));
    }
}

int budget_restore(struct core *core, const void *value, size_t value_bytes)
{
    Record__BudgetRecord *message;
    struct tenant *tenant;
    int r = record_read_budget(value, value_bytes, arena_protobuf_allocator(core->arena), &message);
    if (r == 0 && message->tenant[0] != '\0') {
        r = core_add_tenant(core, message->tenant, &tenant);
    }
    if (r < 0) {
        return r;
    }
    core->budgets.was_restored = true;
    struct budget_purse *purse = purse_named(core, message->tenant, message->tier);
    if (purse != NULL) { /* else its tier is configured no more */
        purse->purse.day = (int32_t)message->day;
        purse->purse.month = (int32_t)message->month;
        purse->purse.day_nanousd = message->day_nanousd;
        purse->purse.month_nanousd = message->month_nanousd;
    }
    return 0;
}

/* ---- showing ---- */

static void visit_one(struct core *core, struct budget_purse *purse,
                      void (*visit)(void *context, const struct core_budget_view *view),
                      void *context)
{
    struct purse *of = &purse->purse;
    if (!purse_is_limited(of)) {
        return;
    }
    purse_roll(of, core->unix_ms);
    const struct core_budget_view view = {
        .tenant = purse->tenant == NULL ? "" : purse->tenant,
        .tier = purse->tier == NULL ? "" : purse->tier,
        .daily_max_nanousd = of->daily_max_nanousd,
        .monthly_max_nanousd = of->monthly_max_nanousd,
        .day_nanousd = of->day_nanousd,
        .month_nanousd = of->month_nanousd,
        .reserved_nanousd = of->reserved_nanousd,
        .day_ends_unix_ms = purse_day_begins_unix_ms(of->day + 1),
        .month_ends_unix_ms = purse_month_begins_unix_ms(of->month + 1),
        .is_soft = purse_spares(of, core->unix_ms),
    };
    visit(context, &view);
}

void core_visit_budgets(struct core *core,
                        void (*visit)(void *context, const struct core_budget_view *view),
                        void *context)
{
    struct budgets *budgets = &core->budgets;
    for (size_t i = 0; i < core->tiers_length; i++) {
        visit_one(core, &budgets->tier[i], visit, context);
    }
    for (size_t i = 0; i < core->tenants.length; i++) {
        for (size_t j = 0; j < budget_purses_length(core); j++) {
            visit_one(core, &core->tenant[i]->purses[j], visit, context);
        }
    }
}

const struct core_budget_counts *core_budget_counts(const struct core *core)
{
    return &core->budgets.counts;
}
