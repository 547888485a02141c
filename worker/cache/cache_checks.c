#include "worker/cache/cache_checks.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/blob.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/log.h"
#include "common/loop.h"
#include "worker/attempt.h"
#include "worker/broker_link.h"
#include "worker/cache/cache.h"
#include "worker/cache/lately.h"
#include "worker/cache/near_policy.h"
#include "worker/cache_mail.h"
#include "worker/telemetry.h"

enum {
    PERMILLE = 1000,
    REFRESH_KEY_BYTES = 80,
    UNDER_WAY_MS = 1000, /* that a job's way to the broker may take */
};
/* Of misses that a model judges: lower ones are hardly ever right, and no threshold lies there. */
static const double JUDGED_SCORE_MIN = -2;

/* ---- jobs ---- */

/* Of the same request. */
static Wire__JobNeeds needs_of(const struct attempt *attempt)
{
    Wire__JobNeeds needs = WIRE__JOB_NEEDS__INIT;
    needs.complexity = attempt->complexity;
    needs.abilities = attempt->abilities;
    needs.input_tokens = attempt->input_tokens;
    needs.residency = attempt->residency;
    return needs;
}

static bool makes_jobs(const struct services *services)
{
    return strcmp(services->config->cache.audit_tier, "none") != 0;
}

/*
 * Where the attempt's job may go, this one may. Errors: -ENOMEM; -ENOBUFS too many wait; -ENODATA the broker, an older one, has not
 * said where that is; -ENOENT no jobs are to be made.
 */
static int make_job(struct services *services, const struct attempt *attempt,
                    Wire__ModelRequest *request, const char *route, Wire__JobNeeds *needs,
                    const char *idempotency_key, const char *why)
{
    if (!makes_jobs(services)) {
        return -ENOENT;
    }
    if (!attempt->has_needs) {
        telemetry_cache_check(services->telemetry, why, "dropped");
        return -ENODATA;
    }
    const size_t bytes = wire__model_request__get_packed_size(request);
    uint8_t *packed = malloc(bytes + 1);
    struct blob *payload = NULL;
    if (packed == NULL) {
        return -ENOMEM;
    }
    (void)wire__model_request__pack(request, packed);
    int r = blob_create(packed, bytes, &payload);
    free(packed);
    if (r < 0) {
        return r;
    }
    struct id id = id_make(services->ids, clock_unix_ms());
    Wire__Submit submit = WIRE__SUBMIT__INIT;
    submit.job_id = (ProtobufCBinaryData){ID_BYTES, id.bytes};
    submit.tier = services->config->cache.audit_tier;
    submit.route = (char *)route;
    submit.pool = attempt->pool;
    submit.idempotency_key = (char *)idempotency_key;
    submit.has_payload = true;
    submit.discard_result = true;
    r = cache_mail_job(broker_link_mail(attempt->broker), attempt->tenant, &submit, needs, payload);
    telemetry_cache_check(services->telemetry, why, r == 0 ? "made" : "dropped");
    blob_unref(&payload);
    return r;
}

/* The same request, that is not answered from the cache. Errors: as make_job(). */
static int ask_anew(struct services *services, const struct attempt *attempt,
                    Wire__CacheCheck *check, const char *idempotency_key, const char *why)
{
    Wire__CacheControl control = WIRE__CACHE_CONTROL__INIT;
    Wire__ModelRequest request = *attempt->request;
    if (request.cache != NULL) {
        control = *request.cache;
    }
    control.use = WIRE__CACHE_CONTROL__USE__USE_REFRESH;
    request.cache = &control;
    request.check = check;
    Wire__JobNeeds needs = needs_of(attempt);
    return make_job(services, attempt, &request, attempt->route, &needs, idempotency_key, why);
}

/* The idempotency key makes it one job, whoever asks; this worker asks once a while, in case it was refused. */
void cache_checks_refresh(struct services *services, const struct attempt *attempt, const struct cache_result *result)
{
    const uint64_t expires_unix_ms = result->entry->about->expires_unix_ms;
    const int64_t now_ms = clock_monotonic_ms();
    if (lately_said(services->lately, result->key, expires_unix_ms, now_ms)) {
        return;
    }
    char hex[ATTEMPT_HEX_BYTES], key[REFRESH_KEY_BYTES];
    hex_write(result->key, CACHE_KEY_BYTES, hex);
    (void)snprintf(key, sizeof(key), "refresh/%s/%" PRIu64, hex, expires_unix_ms);
    Wire__CacheCheck check = WIRE__CACHE_CHECK__INIT;
    check.why = WIRE__CACHE_CHECK__WHY__WHY_REFRESH;
    check.tier = attempt->tier;
    if (ask_anew(services, attempt, &check, key, "refresh") == 0) {
        lately_note(services->lately, result->key, expires_unix_ms, now_ms);
    }
}

static bool hits(double share)
{
    uint32_t random = 0;
    return getrandom(&random, sizeof(random), GRND_NONBLOCK) == (ssize_t)sizeof(random) &&
           (double)random < share * 4294967296.0;
}

/* Owned. Empty without memory. */
static ProtobufCBinaryData pack_about(const Record__CacheAbout *about)
{
    ProtobufCBinaryData packed = {record__cache_about__get_packed_size(about), NULL};
    packed.data = malloc(packed.len + 1);
    packed.len = packed.data == NULL ? 0 : record__cache_about__pack(about, packed.data);
    return packed;
}

void cache_checks_audit(struct services *services, const struct attempt *attempt, const struct cache_result *result)
{
    struct threshold_verdict verdict;
    (void)near_policy_threshold(services->near_policy, attempt->tenant, attempt->tier, &verdict);
    const double share = verdict.audit_share;
    if (share <= 0 || !hits(share)) {
        return;
    }
    Wire__CacheCheck check = WIRE__CACHE_CHECK__INIT;
    check.why = WIRE__CACHE_CHECK__WHY__WHY_AUDIT;
    check.tier = attempt->tier;
    check.embedder = (char *)services->embedder;
    check.near_score = result->score;
    check.near_key = (ProtobufCBinaryData){CACHE_KEY_BYTES, (uint8_t *)result->key};
    check.served = result->entry->body;
    check.weight_permille = share >= 1 ? PERMILLE : (uint64_t)(share * PERMILLE + 0.5);
    check.about = pack_about(result->entry->about);
    (void)ask_anew(services, attempt, &check, "", "audit"); /* one of a sample may be lost */
    free(check.about.data);
}

/* ---- verdicts ---- */

/* What is told once need not be for a while. No entry expires at this time. */
enum { DENIED = 0 };

static bool is_denied_lately(const struct services *services, const uint8_t *key)
{
    return lately_said(services->lately, key, DENIED, clock_monotonic_ms());
}

static void note_denied(struct services *services, const uint8_t *key)
{
    lately_note(services->lately, key, DENIED, clock_monotonic_ms());
}

/* Without memory, here or for the mail, it may err once more; then it is told again. */
void cache_checks_deny(struct services *services, struct broker_link *broker, const uint8_t *key)
{
    const int r = cache_deny_near(services->cache, key);
    if (broker != NULL && !is_denied_lately(services, key)) {
        if (cache_mail_denial(broker_link_mail(broker), key) == 0 && r == 0) {
            note_denied(services, key);
        }
        loop_again(services->loop);
    }
}

void cache_checks_denied(struct services *services, const Wire__CacheDenial *denial)
{
    const uint8_t *key = denial->key.data;
    if (denial->key.len == CACHE_KEY_BYTES && !is_denied_lately(services, key) &&
        cache_deny_near(services->cache, key) == 0) {
        note_denied(services, key);
    }
}

bool cache_checks_comparison(const struct services *services, const struct attempt *attempt,
                             struct cache_comparison *ret_comparison)
{
    if (!attempt->has_candidate || services->judge == JUDGE_MODEL) {
        return false;
    }
    *ret_comparison = (struct cache_comparison){.tenant = attempt->tenant,
                                                .tier = attempt->tier,
                                                .broker = attempt->broker,
                                                .score = attempt->near_score,
                                                .judge = services->judge,
                                                .judge_cosine_min = services->judge_cosine_min};
    memcpy(ret_comparison->key, attempt->candidate, CACHE_KEY_BYTES);
    return true;
}

/* Since the hit that it is about. */
static int64_t ago_ms(const struct attempt *attempt, const Wire__CacheCheck *check)
{
    const int64_t waited_ms =
        check->waited_ms < INT64_MAX / 4 ? (int64_t)check->waited_ms : INT64_MAX / 4;
    return waited_ms + attempt->queue_ms + clock_monotonic_ms() - attempt->started_ms;
}

/* The fresh answer differs then because the world has changed, not because the hit was wrong. */
static bool is_overtaken(const struct services *services, const struct attempt *attempt,
                         const Wire__CacheCheck *check)
{
    Record__CacheAbout *about =
        record__cache_about__unpack(NULL, check->about.len, check->about.data);
    const bool is_known = about != NULL && about->tenant[0] != '\0' && check->near_key.len == CACHE_KEY_BYTES;
    const int64_t served_unix_ms = clock_unix_ms() - ago_ms(attempt, check) - UNDER_WAY_MS;
    /* Of what was invalidated before the start it is not known when. */
    const bool is_invalid = !is_known || served_unix_ms + UNDER_WAY_MS < services->began_unix_ms ||
                            cache_has_invalidated(services->cache, check->near_key.data, about,
                                                  served_unix_ms);
    if (about != NULL) {
        record__cache_about__free_unpacked(about, NULL);
    }
    return is_invalid;
}

static void learn(struct services *services, const struct attempt *attempt, const Wire__CacheCheck *check,
                  enum judge_verdict verdict)
{
    verdict = is_overtaken(services, attempt, check) ? JUDGE_UNKNOWN : verdict;
    const bool has_weight = check->weight_permille > 0 && check->weight_permille <= PERMILLE;
    const bool is_ours =
        strcmp(check->embedder, services->embedder) == 0 && (check->of_miss || has_weight);
    telemetry_cache_check(services->telemetry, check->of_miss ? "miss" : "audit",
                          verdict == JUDGE_SAME        ? "same"
                          : verdict == JUDGE_DIFFERENT ? "different"
                                                       : "unknown");
    if (verdict == JUDGE_UNKNOWN || !is_ours) {
        return;
    }
    near_policy_learned(services->near_policy, attempt->broker, attempt->tenant, check->tier,
                        check->near_score, check->of_miss ? THRESHOLD_MISS : THRESHOLD_AUDIT,
                        verdict == JUDGE_SAME, has_weight ? (uint32_t)check->weight_permille : 0);
    if (verdict == JUDGE_DIFFERENT && check->near_key.len == CACHE_KEY_BYTES &&
        check->near_score >= near_policy_doubt(services->near_policy, attempt->tenant, check->tier)) {
        cache_checks_deny(services, attempt->broker, check->near_key.data);
    }
}

/* Of answers for which no model needs to be asked no more is believed than of the others: judge_share.h. */
static enum judge_verdict share_of(const struct services *services, enum judge_verdict verdict)
{
    const bool is_alone = services->judge == JUDGE_MODEL && verdict == JUDGE_SAME;
    return is_alone && !hits(judge_share_of(&services->judge_share)) ? JUDGE_UNKNOWN : verdict;
}

/* UNKNOWN: a model is asked, if it is the judge. */
static enum judge_verdict judge_check(struct services *services, const struct attempt *attempt,
                                      const Wire__CacheCheck *check)
{
    const enum judge_verdict verdict =
        judge(services->judge, services->judge_cosine_min, check->served.data, check->served.len,
              attempt->body.data, attempt->body.length);
    if (verdict == JUDGE_UNKNOWN && services->judge == JUDGE_MODEL) {
        cache_checks_ask_judge(services, attempt, check);
    } else {
        learn(services, attempt, check, share_of(services, verdict));
    }
    return verdict;
}

bool cache_checks_audited(struct services *services, const struct attempt *attempt)
{
    const Wire__CacheCheck *check = attempt->request->check;
    if (check == NULL || check->why != WIRE__CACHE_CHECK__WHY__WHY_AUDIT) {
        return true;
    }
    return judge_check(services, attempt, check) == JUDGE_DIFFERENT;
}

/* ---- misses that a model judges ---- */

bool cache_checks_judges_miss(struct services *services, const struct attempt *attempt)
{
    struct threshold_verdict verdict;
    if (!attempt->has_candidate || services->judge != JUDGE_MODEL || !makes_jobs(services) ||
        !near_policy_reaches(services->near_policy, attempt->near_score, JUDGED_SCORE_MIN)) {
        return false;
    }
    (void)near_policy_threshold(services->near_policy, attempt->tenant, attempt->tier, &verdict);
    return verdict.state != THRESHOLD_CLOSED_JUDGE && hits(verdict.audit_share);
}

void cache_checks_judge_miss(struct services *services, const struct attempt *attempt,
                             const Record__CacheEntry *candidate)
{
    Wire__CacheCheck check = WIRE__CACHE_CHECK__INIT;
    check.of_miss = true;
    check.tier = attempt->tier;
    check.embedder = (char *)services->embedder;
    check.near_score = attempt->near_score;
    check.near_key = (ProtobufCBinaryData){CACHE_KEY_BYTES, (uint8_t *)attempt->candidate};
    check.served = candidate->body;
    check.about = pack_about(candidate->about);
    (void)judge_check(services, attempt, &check);
    free(check.about.data);
}

/* ---- a model as judge ---- */

static json_t *judge_body(const struct services *services, const char *served, const char *fresh)
{
    json_t *prompt = json_sprintf("%s\n\nFirst answer:\n%s\n\nSecond answer:\n%s", services->judge_prompt, served, fresh);
    return json_pack("{s:s, s:i, s:i, s:[{s:s, s:o}]}", "model", services->judge_model, "temperature", 0, "max_tokens",
                     4, "messages", "role", "user", "content", prompt);
}

void cache_checks_ask_judge(struct services *services, const struct attempt *attempt, const Wire__CacheCheck *audit)
{
    json_t *served = json_loadb((const char *)audit->served.data, audit->served.len, 0, NULL);
    json_t *fresh = json_loadb(attempt->body.data, attempt->body.length, 0, NULL);
    const char *left = judge_text_of(served), *right = judge_text_of(fresh);
    json_t *body = left == NULL || right == NULL ? NULL : judge_body(services, left, right);
    char *text = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
    if (text != NULL) {
        Wire__ModelRequest request = WIRE__MODEL_REQUEST__INIT;
        Wire__CacheCheck check = *audit;
        check.why = WIRE__CACHE_CHECK__WHY__WHY_JUDGE;
        check.served = (ProtobufCBinaryData){0, NULL};
        check.waited_ms = (uint64_t)ago_ms(attempt, audit);
        request.operation = (char *)"chat.completions";
        request.model = (char *)services->judge_model;
        request.body = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
        request.check = &check;
        Wire__JobNeeds needs = WIRE__JOB_NEEDS__INIT; /* of another request: of the job's it has the label */
        needs.residency = attempt->residency;
        judge_share_asked(&services->judge_share);
        (void)make_job(services, attempt, &request, services->judge_model, &needs, "", "judge"); /* likewise */
    }
    free(text);
    json_decref(body);
    json_decref(served);
    json_decref(fresh);
}

static bool begins_with_word(const char *text, const char *word)
{
    const size_t bytes = strlen(word);
    return strncasecmp(text, word, bytes) == 0 && !isalnum((unsigned char)text[bytes]);
}

/* "Nothing differs" is no no, "Not quite" is one. */
static enum judge_verdict verdict_of_text(const char *text)
{
    while (text != NULL && *text != '\0' && !isalpha((unsigned char)*text)) {
        text++;
    }
    return text == NULL                    ? JUDGE_UNKNOWN
           : begins_with_word(text, "yes") ? JUDGE_SAME
           : begins_with_word(text, "no") || begins_with_word(text, "not") ||
                     begins_with_word(text, "nope")
               ? JUDGE_DIFFERENT
               : JUDGE_UNKNOWN;
}

void cache_checks_judged(struct services *services, const struct attempt *attempt)
{
    const Wire__CacheCheck *check = attempt->request->check;
    if (check == NULL || check->why != WIRE__CACHE_CHECK__WHY__WHY_JUDGE) {
        return;
    }
    json_t *answer = json_loadb(attempt->body.data, attempt->body.length, 0, NULL);
    const enum judge_verdict verdict = verdict_of_text(judge_text_of(answer));
    if (verdict != JUDGE_UNKNOWN) {
        judge_share_told(&services->judge_share);
    }
    learn(services, attempt, check, verdict);
    json_decref(answer);
}

const char *cache_checks_name(Wire__CacheCheck__Why why)
{
    switch (why) {
    case WIRE__CACHE_CHECK__WHY__WHY_REFRESH:
        return "refresh";
    case WIRE__CACHE_CHECK__WHY__WHY_AUDIT:
        return "audit";
    case WIRE__CACHE_CHECK__WHY__WHY_JUDGE:
        return "judge";
    case WIRE__CACHE_CHECK__WHY__WHY_NONE:
    case _WIRE__CACHE_CHECK__WHY_IS_INT_SIZE:
        break;
    }
    return "none";
}
