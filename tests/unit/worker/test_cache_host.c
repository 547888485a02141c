/* What the cache tells its host, when that has changed meanwhile: cache and policy are wrapped. */
#include <criterion/criterion.h>
#include <math.h>

#include "common/config.h"
#include "common/loop.h"
#include "worker/cache/cache.h"
#include "worker/cache/near_policy.h"
#include "worker/cache_host.h"
#include "worker/telemetry.h"

static const struct cache_handler *handler;
static void *context;
static int learned;
static const char *last_counted;

int __wrap_cache_create(struct loop *loop, struct log *log, const struct cache_options *options,
                        const struct cache_handler *given, void *given_context,
                        struct cache **ret_cache);
void __wrap_near_policy_learned(struct near_policy *policy, struct broker_link *broker,
                                const char *tenant, const char *tier, double score,
                                enum threshold_kind kind, bool is_right, uint32_t permille);
double __wrap_near_policy_doubt(struct near_policy *policy, const char *tenant, const char *tier);
void __wrap_telemetry_cache_check(struct telemetry *telemetry, const char *why, const char *result);

int __wrap_cache_create(struct loop *loop, struct log *log, const struct cache_options *options,
                        const struct cache_handler *given, void *given_context,
                        struct cache **ret_cache)
{
    static struct cache_handler copy;
    (void)loop;
    (void)log;
    (void)options;
    copy = *given;
    handler = &copy;
    context = given_context;
    *ret_cache = NULL;
    return 0;
}

void __wrap_near_policy_learned(struct near_policy *policy, struct broker_link *broker,
                                const char *tenant, const char *tier, double score,
                                enum threshold_kind kind, bool is_right, uint32_t permille)
{
    (void)policy;
    (void)broker;
    (void)tenant;
    (void)tier;
    (void)score;
    (void)kind;
    (void)is_right;
    (void)permille;
    learned++;
}

double __wrap_near_policy_doubt(struct near_policy *policy, const char *tenant, const char *tier)
{
    (void)policy;
    (void)tenant;
    (void)tier;
    return INFINITY;
}

void __wrap_telemetry_cache_check(struct telemetry *telemetry, const char *why, const char *result)
{
    (void)telemetry;
    (void)why;
    last_counted = result;
}

static void compare(enum judge_kind judge, double cosine_min)
{
    const struct cache_comparison comparison = {.tenant = "shop",
                                                .tier = "fast",
                                                .score = 1,
                                                .judge = judge,
                                                .judge_cosine_min = cosine_min};
    handler->on_compared(context, &comparison, JUDGE_SAME);
}

Test(cache_host, a_comparison_that_a_reload_overtook_is_nothing_to_learn_from)
{
    struct config config = {.cache = {.mode = CACHE_EXACT,
                                      .judge = CONFIG_JUDGE_EMBEDDING,
                                      .judge_cosine_min_permille = 950,
                                      .judge_model = "",
                                      .judge_prompt = ""},
                            .worker = {.data_dir = "/tmp"}};
    struct services services = {.config = &config};
    struct cache_host *host = NULL;
    cr_assert_eq(loop_create(&services.loop), 0);
    cr_assert_eq(cache_host_open(&services, &host), 0);
    compare(JUDGE_EMBEDDING, 0.95);
    cr_assert_eq(learned, 1);
    cr_assert_str_eq(last_counted, "same");
    config.cache.judge_cosine_min_permille = 990;
    cache_host_reconfigure(host);
    compare(JUDGE_EMBEDDING, 0.95);
    cr_assert_eq(learned, 1, "another bound");
    cr_assert_str_eq(last_counted, "unknown");
    compare(JUDGE_EMBEDDING, 0.99);
    cr_assert_eq(learned, 2);
    config.cache.judge = CONFIG_JUDGE_EQUAL;
    cache_host_reconfigure(host);
    compare(JUDGE_EMBEDDING, 0.99);
    cr_assert_eq(learned, 2, "another judge");
    compare(JUDGE_EQUAL, 0.95);
    cr_assert_eq(learned, 3, "which has no bound");
    cache_host_close(&host);
    loop_destroy(&services.loop);
}
