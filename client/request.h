/*
 * request: a job as the broker wants it, made from a caller's struct tiermq_job and kept for resubmission.
 *
 * Everything that can be judged without a broker is judged here, so that a caller's mistake is refused at once and in words:
 * lengths, ranges, the operation, the JSON of the body. What only the broker knows (tiers, routes, limits) it answers itself.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "client/tiermq.h"
#include "common/attributes.h"
#include "common/blob.h"
#include "common/canonical.h"
#include "common/complexity.h"

enum {
    REQUEST_NAME_BYTES_MAX = 255,   /* tier, route, pool, idempotency key: as the broker checks them */
    REQUEST_PRIORITY_MAX = 9,
    REQUEST_TRACE_BYTES = 24,
    REQUEST_BODY_BYTES_MAX = 64 << 20, /* whatever the broker's own bound is, which comes with its welcome */
    REQUEST_ERROR_BYTES = 320,
    REQUEST_TAGS_MAX = 16,          /* of the cache; as wire.CacheControl has them */
    REQUEST_DOCUMENTS_MAX = 64,
    REQUEST_TAG_BYTES_MAX = 128,    /* also of a document and a namespace */
    REQUEST_TEMPLATE_BYTES_MAX = 64,
    REQUEST_TASK_BYTES_MAX = 64,
};
#define REQUEST_TTL_MS_MAX (INT64_C(365) * 24 * 3600 * 1000)

struct request {
    const char *tier; /* these six point into `strings` */
    const char *route;
    const char *pool;
    const char *idempotency_key;
    const char *residency;
    const char *task;
    struct blob *payload; /* a packed wire.ModelRequest; owned */
    uint8_t canonical_key[CANONICAL_KEY_BYTES];
    uint8_t trace_parent[REQUEST_TRACE_BYTES];
    bool has_trace_parent;
    bool stream;
    bool is_distinct; /* the broker is told no canonical key, so it finds nothing identical */
    bool discard_result;
    uint32_t priority;
    uint32_t estimated_tokens;
    uint32_t max_tokens; /* 0: the broker's default */
    uint32_t input_tokens; /* estimated */
    uint32_t prefix;       /* common/complexity.h; 0: none */
    uint32_t abilities;    /* that the model needs */
    uint32_t complexity;   /* 0: the broker makes it of the features */
    uint8_t features[COMPLEXITY_FEATURES];
    int64_t deadline_ms; /* from submission; 0: the tier's default */
    int64_t delay_ms;
    char strings[];
};

/*
 * Gives:  *ret_request, to be released with request_destroy().
 * Errors: -EINVAL and -ENOMEM; ret_error (REQUEST_ERROR_BYTES) names field, value and remedy.
 */
MUST_USE int request_create(const struct tiermq_job *job, const char *tenant, struct request **ret_request,
                            char *ret_error);
void request_destroy(struct request **request);
