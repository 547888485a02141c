/*
 * bench-flat: what the broker's core costs for each event while 1 k, 10 k, 100 k and 1 M jobs wait.
 *
 *   bench-flat ROUNDS JOBS [BACKLOG ...]
 *
 * One core for each backlog, in this process, without socket or disk; times are virtual. In a turn a window of jobs is submitted,
 * the window that was dispatched before is answered, what was answered before is collected, the batch before is durable: the backlog
 * stays as long as it is, and the oldest job is always next. Rounds of JOBS jobs go over the backlogs in turn, so that what else
 * the machine does falls on all of them; medians of the thread's CPU time, and of its ratio to the first backlog's in the same round.
 * Payloads are one shared blob of 1 KiB, kept in memory: loading is the store's work. One line of JSON for each backlog.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "broker/core/core.h"
#include "common/config.h"

enum { WINDOW = 256, SLOTS = 4096, EXPECTED = 8 /* as the shell does with the items of an envelope */,  BACKLOGS_MAX = 8, ROUNDS_MAX = 101, TURN_MS = 2, PAYLOAD_BYTES = 1024 };
enum { CLIENT = 1, WORKER = 2 };

struct bench {
    size_t backlog;
    struct core *core;
    struct effects *effects;
    struct core_time now;
    uint64_t batch, numbers, credit;
    struct blob *payload;
    struct lease_ref leases[SLOTS]; /* dispatched in the last turn */
    size_t leases_length;
    struct id results[SLOTS]; /* told to the client in the last turn */
    size_t results_length;
    uint64_t events;
    double ns_per_event[ROUNDS_MAX], ratio[ROUNDS_MAX];
};

static _Noreturn void die(const char *what, int r)
{
    fprintf(stderr, "bench-flat: %s: %s\n", what, strerror(-r));
    exit(1);
}

static int64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static struct id next_id(struct bench *bench)
{
    struct id id;
    const uint64_t time_bits = __builtin_bswap64(((uint64_t)bench->now.unix_ms << 16) | 0x7000);
    const uint64_t rest = __builtin_bswap64(++bench->numbers | UINT64_C(1) << 63);
    memcpy(id.bytes, &time_bits, 8);
    memcpy(id.bytes + 8, &rest, 8);
    return id;
}

static void step(struct bench *bench, const struct event *event)
{
    core_step(bench->core, bench->now, event, bench->effects);
    bench->events++;
}

static void submit(struct bench *bench, const struct id *job_id)
{
    step(bench, &(struct event){
                    .kind = EVENT_SUBMIT,
                    .peer = CLIENT,
                    .as.submit = {.job_id = *job_id,
                                  .tier = "background",
                                  .route = "auto",
                                  .pool = "",
                                  .idempotency_key = "",
                                  .estimated_tokens = 256,
                                  .payload = bench->payload},
                });
}

static void answer(struct bench *bench)
{
    static const Wire__Usage usage = {.base = PROTOBUF_C_MESSAGE_INIT(&wire__usage__descriptor),
                                      .input_tokens = 100,
                                      .output_tokens = 100,
                                      .provider = (char *)(uintptr_t)"bench",
                                      .model = (char *)(uintptr_t)"bench"};
    for (size_t i = 0; i < bench->leases_length; i++) {
        if (i + EXPECTED < bench->leases_length) {
            core_expect(bench->core, &bench->leases[i + EXPECTED].job_id);
        }
        step(bench, &(struct event){
                        .kind = EVENT_ATTEMPT_RESULT,
                        .peer = WORKER,
                        .as.attempt_result = {.lease = bench->leases[i],
                                              .outcome = WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED,
                                              .error_code = "",
                                              .error_text = "",
                                              .usage = &usage,
                                              .payload = bench->payload},
                    });
    }
    bench->credit += bench->leases_length;
    bench->leases_length = 0;
}

static void collect(struct bench *bench)
{
    for (size_t i = 0; i < bench->results_length; i++) {
        step(bench, &(struct event){.kind = EVENT_COLLECTED, .peer = CLIENT, .as.job = {.job_id = bench->results[i]}});
    }
    bench->results_length = 0;
}

static void take_effects(struct bench *bench)
{
    for (size_t i = 0; i < effects_length(bench->effects); i++) {
        const struct effect *effect = effects_at(bench->effects, i);
        if (effect->kind == EFFECT_REJECTED || effect->kind == EFFECT_CLIENT_ERROR || effect->kind == EFFECT_WORKER_ERROR ||
            effect->kind == EFFECT_LOAD) {
            die("an effect that does not belong here", -EPROTO);
        }
        if (effect->kind == EFFECT_DISPATCH) {
            bench->leases[bench->leases_length++] = effect->as.dispatch.lease;
        } else if (effect->kind == EFFECT_RESULT) {
            bench->results[bench->results_length++] = effect->as.result.job_id;
        }
    }
    const uint64_t written = bench->batch;
    bench->batch += effects_have_records(bench->effects);
    effects_reset(bench->effects, bench->batch);
    bench->now.now_ms += TURN_MS;
    bench->now.unix_ms += TURN_MS;
    if (bench->batch > written) {
        step(bench, &(struct event){.kind = EVENT_DURABLE, .as.durable = {.batch = written}});
    }
}

static void turn(struct bench *bench, size_t submissions)
{
    answer(bench);
    collect(bench);
    struct id ids[WINDOW];
    for (size_t i = 0; i < submissions; i++) {
        ids[i] = next_id(bench);
    }
    for (size_t i = 0; i < submissions; i++) {
        if (i + EXPECTED < submissions) {
            core_expect(bench->core, &ids[i + EXPECTED]);
        }
        submit(bench, &ids[i]);
    }
    if (bench->credit > 0) {
        step(bench, &(struct event){.kind = EVENT_WORKER_CREDIT, .peer = WORKER, .as.worker_credit = {.total = bench->credit}});
    }
    step(bench, &(struct event){.kind = EVENT_TICK});
    take_effects(bench);
}

static void begin(struct bench *bench, const struct config *config, size_t backlog)
{
    static const char payload[PAYLOAD_BYTES];
    bench->backlog = backlog;
    bench->now = (struct core_time){.now_ms = 1000000, .unix_ms = INT64_C(1800000000000)};
    bench->batch = 1;
    int r = blob_create(payload, sizeof(payload), &bench->payload);
    r = r < 0 ? r : effects_create(&bench->effects);
    r = r < 0 ? r : core_create(config, backlog, bench->now, &bench->core);
    if (r < 0) {
        die("begin", r);
    }
    effects_reset(bench->effects, bench->batch);
    step(bench, &(struct event){.kind = EVENT_CLIENT_HELLO, .peer = CLIENT, .as.client_hello = {.tenant = "default", .name = "bench"}});
    for (size_t left = backlog; left > 0;) {
        const size_t some = left < WINDOW ? left : WINDOW;
        turn(bench, some);
        left -= some;
    }
    step(bench, &(struct event){.kind = EVENT_WORKER_HELLO, .peer = WORKER, .as.worker_hello = {.name = "w", .slots = SLOTS}});
    bench->credit = WINDOW + SLOTS / 4; /* a quarter stays reserved for realtime jobs */
    turn(bench, WINDOW);
}

static void finish(struct bench *bench)
{
    core_destroy(&bench->core);
    effects_destroy(&bench->effects);
    blob_unref(&bench->payload);
}

static double round_of(struct bench *bench, size_t jobs)
{
    const uint64_t before = bench->events;
    const int64_t began_ns = cpu_ns();
    for (size_t done = 0; done < jobs; done += WINDOW) {
        turn(bench, WINDOW);
    }
    const int64_t took_ns = cpu_ns() - began_ns;
    struct core_stats stats;
    core_read_stats(bench->core, bench->now, &stats);
    if (stats.jobs < bench->backlog || stats.jobs > bench->backlog + 2 * WINDOW || bench->leases_length != WINDOW) {
        die("the backlog did not stay", -EPROTO);
    }
    return (double)took_ns / (double)(bench->events - before);
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(struct bench *bench, size_t rounds)
{
    qsort(bench->ns_per_event, rounds, sizeof(double), compare_doubles);
    qsort(bench->ratio, rounds, sizeof(double), compare_doubles);
    printf("{\"backlog\":%zu,\"ns_per_event\":%.1f,\"least\":%.1f,\"most\":%.1f,\"ratio\":%.3f}\n", bench->backlog,
           bench->ns_per_event[rounds / 2], bench->ns_per_event[0], bench->ns_per_event[rounds - 1], bench->ratio[rounds / 2]);
}

static struct config *make_config(void)
{
    static const char text[] = "broker: {memory_payload_bytes_max: 1TiB}\n"
                               "tenants: [{name: default, jobs_max: 100000000, bytes_max: 1TiB}]\n";
    struct config *config = NULL;
    struct config_errors errors = {0};
    const int r = config_read_text(text, sizeof(text) - 1, "bench", &config, &errors);
    if (r < 0) {
        die(errors.length > 0 ? errors.items[0].text : "configuration", r);
    }
    return config;
}

int main(int argc, char **argv)
{
    static struct bench benches[BACKLOGS_MAX];
    static const char *const usual[] = {"1000", "10000", "100000", "1000000"};
    const int rounds = argc < 3 ? 0 : atoi(argv[1]);
    const size_t jobs = argc < 3 ? 0 : strtoull(argv[2], NULL, 10);
    const char *const *backlogs = argc > 3 ? (const char *const *)argv + 3 : usual;
    const size_t length = argc > 3 ? (size_t)argc - 3 : 4;
    if (rounds < 1 || rounds > ROUNDS_MAX || jobs < WINDOW || length > BACKLOGS_MAX) {
        fprintf(stderr, "usage: bench-flat ROUNDS JOBS [BACKLOG ...]   1 to %d rounds of at least %d jobs\n", ROUNDS_MAX, WINDOW);
        return 2;
    }
    struct config *config = make_config();
    for (size_t i = 0; i < length; i++) {
        begin(&benches[i], config, strtoull(backlogs[i], NULL, 10));
    }
    for (int round = 0; round < rounds; round++) {
        for (size_t i = 0; i < length; i++) {
            benches[i].ns_per_event[round] = round_of(&benches[i], jobs);
            benches[i].ratio[round] = benches[i].ns_per_event[round] / benches[0].ns_per_event[round];
        }
    }
    for (size_t i = 0; i < length; i++) {
        report(&benches[i], (size_t)rounds);
        finish(&benches[i]);
    }
    config_destroy(&config);
    return 0;
}
