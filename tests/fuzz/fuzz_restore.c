/*
 * A whole store as a disk gives it back: whatever the records say, the core is there afterwards, and
 * what it says of its jobs can be read.
 *
 * The input is a list of records: a byte for the family, a byte with the length of the key, two with
 * that of the value, the key, the value. Families come in the order of recovery, so a record of an
 * earlier one counts as of the one before it. Times are virtual.
 */
#include <string.h>
#include "broker/core/core.h"
#include "common/config.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/links.h"

enum { WORKER = 1, TURNS = 4, TURN_MS = 60 * 1000, SLOTS = 16, LIST_LIMIT = 100 };

struct restored {
    struct core *core;
    struct effects *effects;
    struct core_time now;
    uint64_t batch;
};

static struct config *read_config(void)
{
    static const char text[] = "broker: {store: memory}\ntenants: [{name: default}]\n"
                               "providers: [{name: p, type: openai, base_url: \"http://p\"}]\n"
                               "models: [{name: m, provider: p}]\n";
    struct config *config = NULL;
    struct config_errors errors = {0};
    must_hold(config_read_text(text, sizeof(text) - 1, "fuzz", &config, &errors) == 0);
    config_errors_finish(&errors);
    return config;
}

/* A copy of its own, so that a read beyond its end is seen. */
static uint8_t *take_bytes(struct input *input, size_t wanted_bytes, size_t *ret_bytes)
{
    const size_t bytes = wanted_bytes < input->bytes ? wanted_bytes : input->bytes;
    uint8_t *copy = malloc(bytes == 0 ? 1 : bytes);
    must_hold(copy != NULL);
    if (bytes > 0) {
        memcpy(copy, input->data, bytes);
    }
    input->data += bytes;
    input->bytes -= bytes;
    *ret_bytes = bytes;
    return copy;
}

static void restore_one(struct restored *restored, struct input *input, size_t *step)
{
    static const enum store_family order[] = {STORE_META, STORE_CONCLUDED, STORE_JOBS,
                                              STORE_LEASES};
    const size_t wanted = input_byte(input) % (sizeof(order) / sizeof(order[0]));
    const size_t key_wanted = input_byte(input);
    const size_t high = input_byte(input);
    const size_t value_wanted = (high << 8) | input_byte(input);
    size_t key_bytes, value_bytes;
    uint8_t *key = take_bytes(input, key_wanted, &key_bytes);
    uint8_t *value = take_bytes(input, value_wanted, &value_bytes);
    *step = wanted > *step ? wanted : *step;
    (void)!core_restore(restored->core, order[*step], key, key_bytes, value, value_bytes,
                        restored->now);
    free(key);
    free(value);
}

static void step(struct restored *restored, const struct event *event)
{
    core_step(restored->core, restored->now, event, restored->effects);
}

/* Everything is kept; what is loaded is lost; what is dispatched is never answered. */
static void end_turn(struct restored *restored)
{
    struct event loaded[SLOTS];
    size_t n = 0;
    for (size_t i = 0; i < effects_length(restored->effects) && n < SLOTS; i++) {
        const struct effect *effect = effects_at(restored->effects, i);
        if (effect->kind == EFFECT_LOAD) {
            loaded[n++] = (struct event){.kind = EVENT_LOADED,
                                         .as.loaded = {.token = effect->as.load.token,
                                                       .result = -2}};
        }
    }
    const uint64_t durable = restored->batch;
    effects_reset(restored->effects, ++restored->batch);
    step(restored, &(struct event){.kind = EVENT_DURABLE, .as.durable = {.batch = durable}});
    for (size_t i = 0; i < n; i++) {
        step(restored, &loaded[i]);
    }
}

static void look_at_letter(void *context, const struct core_dead_view *view)
{
    size_t *n = context;
    must_hold(view->tenant != NULL && view->tier != NULL && view->route != NULL);
    must_hold(view->code != NULL && view->text != NULL && view->worker != NULL &&
              view->provider != NULL && view->why_not != NULL);
    ++*n;
}

static void look(struct restored *restored)
{
    struct core_stats stats;
    const struct dead_filter everything = {.tenant = NULL};
    size_t n = 0;
    core_read_stats(restored->core, restored->now, &stats);
    (void)core_visit_dead(restored->core, &everything, 0, LIST_LIMIT, look_at_letter, &n);
    must_hold(n == (stats.dead_letters < LIST_LIMIT ? stats.dead_letters : LIST_LIMIT));
}

static void live(struct restored *restored)
{
    static const char *const pools[] = {"default"};
    core_restored(restored->core, restored->now);
    look(restored);
    step(restored, &(struct event){.kind = EVENT_WORKER_HELLO,
                                   .peer = WORKER,
                                   .as.worker_hello = {.name = "w",
                                                       .pools = pools,
                                                       .pools_length = 1,
                                                       .slots = SLOTS}});
    step(restored, &(struct event){.kind = EVENT_WORKER_CREDIT,
                                   .peer = WORKER,
                                   .as.worker_credit = {.total = SLOTS}});
    for (int i = 0; i < TURNS; i++) {
        restored->now.now_ms += TURN_MS;
        restored->now.unix_ms += TURN_MS;
        step(restored, &(struct event){.kind = EVENT_TICK});
        end_turn(restored);
        look(restored);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct config *config = read_config();
    struct restored restored = {
        .now = {.now_ms = 1000, .unix_ms = INT64_C(1700000000000)}, .batch = 1};
    must_hold(effects_create(&restored.effects) == 0);
    effects_reset(restored.effects, restored.batch);
    must_hold(core_create(config, 1, restored.now, &restored.core) == 0);
    struct input input = {.data = data, .bytes = bytes};
    size_t order = 0;
    while (input.bytes > 0) {
        restore_one(&restored, &input, &order);
    }
    live(&restored);
    core_destroy(&restored.core);
    effects_destroy(&restored.effects);
    config_destroy(&config);
    return 0;
}
