/* What is asked or told of an entry once, when that fails: mail and cache are wrapped. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

#include "common/config.h"
#include "common/id.h"
#include "worker/attempt.h"
#include "worker/broker_link.h"
#include "worker/cache/cache.h"
#include "worker/cache/cache_checks.h"
#include "worker/cache/lately.h"
#include "worker/cache_mail.h"
#include "worker/telemetry.h"

/* ---- what fails ---- */

static int mail_result, cache_result;
static int jobs, denials, denied_here; /* that were tried */
static Wire__JobNeeds needed;          /* by the latest job */
static char label[16];

int __wrap_cache_mail_job(struct cache_mail *mail, const char *tenant, const Wire__Submit *submit,
                          Wire__JobNeeds *needs, struct blob *payload);
int __wrap_cache_mail_denial(struct cache_mail *mail, const uint8_t *key);
int __wrap_cache_deny_near(struct cache *cache, const uint8_t *key);
struct cache_mail *__wrap_broker_link_mail(struct broker_link *link);
void __wrap_telemetry_cache_check(struct telemetry *telemetry, const char *why, const char *what);
void __wrap_loop_again(struct loop *loop);

int __wrap_cache_mail_job(struct cache_mail *mail, const char *tenant, const Wire__Submit *submit,
                          Wire__JobNeeds *needs, struct blob *payload)
{
    (void)mail;
    (void)tenant;
    (void)submit;
    (void)payload;
    jobs++;
    needed = *needs;
    (void)snprintf(label, sizeof(label), "%s", needs->residency);
    return mail_result;
}

int __wrap_cache_mail_denial(struct cache_mail *mail, const uint8_t *key)
{
    (void)mail;
    (void)key;
    denials++;
    return mail_result;
}

int __wrap_cache_deny_near(struct cache *cache, const uint8_t *key)
{
    (void)cache;
    (void)key;
    denied_here++;
    return cache_result;
}

struct cache_mail *__wrap_broker_link_mail(struct broker_link *link)
{
    (void)link;
    return NULL;
}

void __wrap_telemetry_cache_check(struct telemetry *telemetry, const char *why, const char *what)
{
    (void)telemetry;
    (void)why;
    (void)what;
}

void __wrap_loop_again(struct loop *loop)
{
    (void)loop;
}

/* ---- a worker ---- */

static const uint8_t KEY[CACHE_KEY_BYTES] = {1, 2, 3};
static struct broker_link *const BROKER = (struct broker_link *)&jobs; /* by its address alone */
static struct lately lately;
static struct id_source ids;
static struct config config = {.cache.audit_tier = "batch"};
static struct services services = {.lately = &lately, .ids = &ids, .config = &config};

static void start(void)
{
    cr_assert_eq(id_source_init(&ids), 0);
}

TestSuite(cache_checks, .init = start);

static void refresh_of(bool has_needs)
{
    Wire__ModelRequest request = WIRE__MODEL_REQUEST__INIT;
    Record__CacheAbout about = RECORD__CACHE_ABOUT__INIT;
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    struct attempt attempt = {.request = &request,
                              .tenant = "shop",
                              .tier = "fast",
                              .route = "auto",
                              .pool = "",
                              .has_needs = has_needs,
                              .complexity = 200,
                              .abilities = 5,
                              .input_tokens = 1234,
                              .residency = "eu",
                              .tenant_residency = "ch"};
    struct cache_result result = {.key = {1, 2, 3}, .entry = &entry};
    about.expires_unix_ms = 1000;
    entry.about = &about;
    cache_checks_refresh(&services, &attempt, &result);
}

static void refresh(void)
{
    refresh_of(true);
}

Test(cache_checks, a_refresh_needs_what_its_job_needed)
{
    refresh();
    cr_assert_eq(jobs, 1);
    cr_assert_str_eq(label, "eu");
    cr_assert_eq(needed.complexity, 200);
    cr_assert_eq(needed.abilities, 5);
    cr_assert_eq(needed.input_tokens, 1234);
}

Test(cache_checks, a_judge_sees_the_answers_where_their_job_could_go)
{
    static const char served[] = "{\"choices\": [{\"message\": {\"content\": \"a\"}}]}";
    struct attempt attempt = {.tenant = "shop",
                              .tier = "fast",
                              .route = "auto",
                              .pool = "",
                              .has_needs = true,
                              .abilities = 5,
                              .residency = "eu",
                              .tenant_residency = "",
                              .body = {.data = (char *)served, .length = sizeof(served) - 1}};
    Wire__CacheCheck audit = WIRE__CACHE_CHECK__INIT;
    audit.served = (ProtobufCBinaryData){sizeof(served) - 1, (uint8_t *)served};
    services.judge_model = "judge";
    services.judge_prompt = "The same?";
    cache_checks_ask_judge(&services, &attempt, &audit);
    cr_assert_eq(jobs, 1);
    cr_assert_str_eq(label, "eu");
    cr_assert_eq(needed.abilities, 0);
}

Test(cache_checks, no_job_is_made_of_one_whose_needs_are_not_known)
{
    refresh_of(false);
    cr_assert_eq(jobs, 0);
}

Test(cache_checks, no_job_is_made_where_there_is_no_tier_for_it)
{
    config.cache.audit_tier = "none";
    refresh();
    cr_assert_eq(jobs, 0);
}

Test(cache_checks, a_refresh_that_could_not_be_asked_for_is_asked_for_again)
{
    mail_result = -ENOBUFS;
    refresh();
    mail_result = 0;
    refresh();
    cr_assert_eq(jobs, 2);
    refresh();
    cr_assert_eq(jobs, 2, "it was asked for");
}

Test(cache_checks, a_denial_that_could_not_be_told_is_told_again)
{
    mail_result = -ENOBUFS;
    cache_checks_deny(&services, BROKER, KEY);
    mail_result = 0;
    cache_checks_deny(&services, BROKER, KEY);
    cr_assert_eq(denials, 2);
    cache_checks_deny(&services, BROKER, KEY);
    cr_assert_eq(denials, 2, "it was told");
}

Test(cache_checks, a_denial_that_could_not_be_taken_is_taken_the_next_time)
{
    Wire__CacheDenial denial = WIRE__CACHE_DENIAL__INIT;
    denial.key = (ProtobufCBinaryData){sizeof(KEY), (uint8_t *)KEY};
    cache_result = -ENOMEM;
    cache_checks_denied(&services, &denial);
    cache_result = 0;
    cache_checks_denied(&services, &denial);
    cr_assert_eq(denied_here, 2);
    cache_checks_denied(&services, &denial);
    cr_assert_eq(denied_here, 2, "it was taken");
}
