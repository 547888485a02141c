#include "tests/modelsim/counters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "common/clock.h"

/* Hashes of the keys that were answered, open addressing. When full it counts no more repeats rather than wrong ones. */
enum { KEYS_MAX = 1 << 22 };
struct key_set {
    size_t length;
    uint64_t slots[KEYS_MAX]; /* touched pages only are resident */
};

static uint64_t *find_slot(struct key_set *keys, uint64_t hash)
{
    size_t i = hash % KEYS_MAX;
    while (keys->slots[i] != 0 && keys->slots[i] != hash) {
        i = (i + 1) % KEYS_MAX;
    }
    return &keys->slots[i];
}

static uint64_t hash_key(const char *key)
{
    uint64_t hash = XXH3_64bits(key, strlen(key));
    return hash != 0 ? hash : 1;
}

int counters_init(struct counters *counters)
{
    *counters = (struct counters){.answered_keys = calloc(1, sizeof(struct key_set))};
    return counters->answered_keys != NULL ? 0 : -ENOMEM;
}

void counters_finish(struct counters *counters)
{
    free(counters->answered_keys);
    counters->answered_keys = NULL;
}

void counters_reset(struct counters *counters)
{
    uint64_t in_flight = counters->in_flight;
    struct key_set *keys = counters->answered_keys;
    memset(keys, 0, sizeof(*keys));
    *counters = (struct counters){.in_flight = in_flight, .in_flight_max = in_flight, .answered_keys = keys};
}

void counters_begin(struct counters *counters, enum api api, const char *idempotency_key)
{
    counters->requests[api]++;
    counters->in_flight++;
    if (counters->in_flight > counters->in_flight_max) {
        counters->in_flight_max = counters->in_flight;
    }
    history_at(&counters->history, clock_unix_ms(), counters->in_flight)->requests++;
    if (idempotency_key != NULL && *find_slot(counters->answered_keys, hash_key(idempotency_key)) != 0) {
        counters->repeated_keys++;
    }
}

void counters_answered(struct counters *counters, const char *idempotency_key)
{
    counters->answered++;
    if (idempotency_key == NULL || counters->answered_keys->length >= KEYS_MAX / 2) {
        return;
    }
    uint64_t hash = hash_key(idempotency_key);
    uint64_t *slot = find_slot(counters->answered_keys, hash);
    counters->answered_keys->length += *slot == 0;
    *slot = hash;
}

void counters_end(struct counters *counters, bool is_answered, int status)
{
    struct history_second *second = history_at(&counters->history, clock_unix_ms(), counters->in_flight);
    const bool is_limited = status == 429 || status == 498 || status == 529;
    counters->in_flight--;
    counters->aborted += !is_answered;
    second->answered += is_answered;
    second->limited += !is_answered && is_limited;
    second->failed += !is_answered && !is_limited;
}

json_t *counters_describe(const struct counters *counters, const struct faults *faults)
{
    json_t *requests = json_object(), *statuses = json_object(), *happened = json_object();
    uint64_t total = 0;
    for (size_t i = 0; i < API_COUNT; i++) {
        total += counters->requests[i];
        json_object_set_new(requests, api_name((enum api)i), json_integer((json_int_t)counters->requests[i]));
    }
    for (size_t i = 0; i < ARRAY_LENGTH(counters->statuses); i++) {
        if (counters->statuses[i] > 0) {
            char name[16];
            snprintf(name, sizeof(name), "%zu", i);
            json_object_set_new(statuses, name, json_integer((json_int_t)counters->statuses[i]));
        }
    }
    for (size_t i = FAULT_NONE + 1; i < FAULT_KINDS; i++) {
        json_object_set_new(happened, fault_kind_name((enum fault_kind)i), json_integer((json_int_t)faults->happened[i]));
    }
    return json_pack("{s:I, s:o, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "requests_total", (json_int_t)total,
                     "requests", requests, "statuses", statuses, "faults", happened, "streams", (json_int_t)counters->streams,
                     "answered", (json_int_t)counters->answered, "aborted", (json_int_t)counters->aborted, "in_flight",
                     (json_int_t)counters->in_flight, "in_flight_max", (json_int_t)counters->in_flight_max, "input_tokens",
                     (json_int_t)counters->input_tokens, "output_tokens", (json_int_t)counters->output_tokens, "repeated_keys",
                     (json_int_t)counters->repeated_keys, "limited", (json_int_t)counters->limited);
}
