#include "worker/decode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/canonical.h"
#include "common/clock.h"
#include "common/log.h"
#include "worker/attempt.h"
#include "worker/telemetry.h"

enum { CACHE_TAGS_MAX = 16, CACHE_DOCUMENTS_MAX = 64, CACHE_NAME_BYTES_MAX = 128 };

#define INVALID     WIRE__ATTEMPT_OUTCOME__ATTEMPT_INVALID
#define UNAVAILABLE WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE

/*
 * The client named a key under which identical jobs share one answer. Ours is the one that counts:
 * the broker is told, since it has let others follow under the wrong one. Clients have no secret: `key` is made without.
 */
static void compare_keys(struct services *services, struct attempt *attempt, const uint8_t key[ATTEMPT_KEY_BYTES])
{
    if (memcmp(attempt->client_key, key, ATTEMPT_KEY_BYTES) != 0) {
        attempt->key_mismatch = true;
        telemetry_key_mismatch(services->telemetry);
        log_at(services->log, LOG_WARN, "canonical key of the client is not that of its request",
               log_job(&attempt->job_id), log_text("tenant", attempt->tenant));
    }
}

static const char *namespace_of(const Wire__ModelRequest *request)
{
    return request->cache == NULL ? "" : request->cache->cache_namespace;
}

static void make_key(const struct canonical_secret *secret, const struct attempt *attempt, const char *text, size_t bytes,
                     uint8_t ret_key[ATTEMPT_KEY_BYTES])
{
    canonical_key(secret, attempt->tenant, namespace_of(attempt->request), attempt->request->operation, attempt->route, text,
                  bytes, ret_key);
}

static void make_keys(struct services *services, struct attempt *attempt, const char *text, size_t bytes)
{
    uint8_t plain[ATTEMPT_KEY_BYTES];
    make_key(&services->key_secret, attempt, text, bytes, attempt->key);
    if (attempt->has_client_key && services->key_secret.is_set) {
        make_key(NULL, attempt, text, bytes, plain);
        compare_keys(services, attempt, plain);
    } else if (attempt->has_client_key) {
        compare_keys(services, attempt, attempt->key);
    }
    /* Whoever follows it has not said that an answer made in company will do. */
    attempt->key_mismatch = attempt->key_mismatch ||
                            (attempt->has_client_key && attempt->request->batchable &&
                             attempt->operation == OPERATION_CHAT);
    /* Clients know nothing of labels: only what is kept goes by them. */
    char *labels[ATTEMPT_LABELS_MAX];
    canonical_key_narrow(&services->key_secret, labels, attempt_labels(attempt, labels),
                         attempt->key);
}

static enum stage_verdict set_key(struct services *services, struct attempt *attempt)
{
    char error[CANONICAL_ERROR_BYTES] = "";
    char *text = NULL;
    size_t bytes = 0;
    const ProtobufCBinaryData *body = &attempt->request->body;
    int r = canonical_parse(body->data, body->len, &attempt->asked, error);
    r = r < 0 ? r : canonical_of(attempt->asked, &text, &bytes, error);
    if (r == -EINVAL) {
        outcome_set(&attempt->outcome, INVALID, "invalid_body",
                    "the request's body is not usable JSON: %s", error);
        return STAGE_CONCLUDES;
    }
    if (r < 0) {
        outcome_set(&attempt->outcome, UNAVAILABLE, "memory", "the worker is out of memory");
        return STAGE_CONCLUDES;
    }
    make_keys(services, attempt, text, bytes);
    free(text);
    return STAGE_NEXT;
}

static bool names_are_good(char *const *names, size_t length, size_t most)
{
    bool is_good = length <= most;
    for (size_t i = 0; is_good && i < length; i++) {
        is_good = strlen(names[i]) <= CACHE_NAME_BYTES_MAX;
    }
    return is_good;
}

/* What is kept with an entry is bounded, whoever says it. */
static bool control_is_good(const Wire__CacheControl *control)
{
    return control == NULL ||
           (strlen(control->cache_namespace) <= CACHE_NAME_BYTES_MAX &&
            strlen(control->template_version) <= CACHE_NAME_BYTES_MAX &&
            names_are_good(control->tags, control->n_tags, CACHE_TAGS_MAX) &&
            names_are_good(control->documents, control->n_documents, CACHE_DOCUMENTS_MAX));
}

/* Evidence about near hits, and what refreshes entries, comes from workers alone. */
static void forget_claims(struct attempt *attempt)
{
    if (!attempt->is_of_worker && attempt->request->check != NULL) {
        wire__cache_check__free_unpacked(attempt->request->check, NULL);
        attempt->request->check = NULL;
    }
}

/* Its answer would be an order number that nobody here could redeem. */
static enum stage_verdict refuse_background(struct attempt *attempt)
{
    if (attempt->operation != OPERATION_RESPONSES ||
        !json_is_true(json_object_get(attempt->asked, "background"))) {
        return STAGE_NEXT;
    }
    outcome_set(&attempt->outcome, INVALID, "background",
                "background: a job is answered with the whole response; leave it out, and submit "
                "without waiting instead");
    return STAGE_CONCLUDES;
}

static enum stage_verdict decode_start(void *module, struct attempt *attempt)
{
    attempt->request = wire__model_request__unpack(NULL, blob_bytes(attempt->payload),
                                                   blob_data(attempt->payload));
    blob_unref(&attempt->payload);
    if (attempt->request == NULL) {
        outcome_set(&attempt->outcome, INVALID, "invalid_payload",
                    "the payload is no ModelRequest");
        return STAGE_CONCLUDES;
    }
    forget_claims(attempt);
    if (!operation_parse(attempt->request->operation, &attempt->operation)) {
        outcome_set(&attempt->outcome, INVALID, "unknown_operation",
                    "operation \"%.64s\" is not one of chat.completions, "
                    "completions, embeddings, responses",
                    attempt->request->operation);
        return STAGE_CONCLUDES;
    }
    if (!control_is_good(attempt->request->cache)) {
        outcome_set(&attempt->outcome, INVALID, "invalid_cache_control",
                    "cache: at most %d tags and %d documents, names of %d bytes at most",
                    CACHE_TAGS_MAX, CACHE_DOCUMENTS_MAX, CACHE_NAME_BYTES_MAX);
        return STAGE_CONCLUDES;
    }
    enum stage_verdict verdict = set_key(module, attempt);
    return verdict == STAGE_NEXT ? refuse_background(attempt) : verdict;
}

struct stage decode_stage(struct services *services)
{
    return (struct stage){.name = "decode", .module = services, .start = decode_start};
}

static enum stage_verdict deadline_start(void *module, struct attempt *attempt)
{
    (void)module;
    if (clock_monotonic_ms() < attempt->deadline_ms) {
        return STAGE_NEXT;
    }
    outcome_set(&attempt->outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_EXPIRED, "deadline",
                "the deadline passed before the call");
    return STAGE_CONCLUDES;
}

struct stage deadline_stage(struct services *services)
{
    return (struct stage){.name = "deadline", .module = services, .start = deadline_start};
}
