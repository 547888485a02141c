/*
 * bench-tiers: how long realtime jobs wait while other tiers are busy.
 *
 *   bench-tiers CLIENTS_ENDPOINT BACKLOG STANDARD_PER_S REALTIME_PER_S SECONDS
 *
 * Submits BACKLOG background jobs and leaves them queued; then, at the same time and evenly spaced, STANDARD_PER_S
 * durable jobs and REALTIME_PER_S realtime jobs a second for SECONDS. One line of JSON: the realtime jobs' wait in the
 * broker's queue and their time from submission to answer, as a client sees it through libtiermq.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "client/tiermq.h"
#include "common/attributes.h"
#include "common/clock.h"
#include "common/histogram.h"

struct figures {
    struct histogram queue_ms, total_us;
    uint64_t backlog_accepted, standard_answered, realtime_answered, failed;
};

static void on_backlog_accepted(void *context, const tiermq_id *id, bool duplicate)
{
    (void)id;
    (void)duplicate;
    struct figures *figures = context;
    figures->backlog_accepted++;
}

static void note_failure(struct figures *figures, const char *tier, const struct tiermq_answer *answer)
{
    if (figures->failed++ == 0) {
        fprintf(stderr, "bench-tiers: a %s job failed: %s %s\n", tier, answer->error_code, answer->error_text);
    }
}

static void on_backlog_answer(void *context, const struct tiermq_answer *answer)
{
    (void)context;
    if (answer->state == TIERMQ_REJECTED) {
        fprintf(stderr, "bench-tiers: the backlog was refused: %s\n", answer->error_text);
        exit(1);
    }
}

static void on_standard_answer(void *context, const struct tiermq_answer *answer)
{
    struct figures *figures = context;
    figures->standard_answered++;
    if (answer->state != TIERMQ_SUCCEEDED) {
        note_failure(figures, "standard", answer);
    }
}

static void on_realtime_answer(void *context, const struct tiermq_answer *answer)
{
    struct figures *figures = context;
    figures->realtime_answered++;
    if (answer->state != TIERMQ_SUCCEEDED) {
        note_failure(figures, "realtime", answer);
        return;
    }
    histogram_record(&figures->queue_ms, (uint64_t)answer->queue_ms);
    histogram_record(&figures->total_us, (uint64_t)answer->total_us);
}

static void submit(struct tiermq *client, const char *tier, uint64_t number, tiermq_answer_fn *on_answer,
                   tiermq_accepted_fn *on_accepted, struct figures *figures)
{
    char prompt[64];
    snprintf(prompt, sizeof(prompt), "%s question number %llu", tier, (unsigned long long)number);
    struct tiermq_job job = {.tier = tier, .prompt = prompt}; /* its tier's deadline */
    struct tiermq_callbacks callbacks = {.on_answer = on_answer, .on_accepted = on_accepted, .context = figures};
    if (tiermq_submit_async(client, &job, &callbacks, NULL) < 0) {
        fprintf(stderr, "bench-tiers: submit: %s\n", tiermq_last_error(client));
        exit(1);
    }
}

static void turn(struct tiermq *client, int timeout_ms)
{
    if (tiermq_dispatch(client, timeout_ms) < 0) {
        fprintf(stderr, "bench-tiers: %s\n", tiermq_last_error(client));
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: bench-tiers CLIENTS_ENDPOINT BACKLOG STANDARD_PER_S REALTIME_PER_S SECONDS\n");
        return 2;
    }
    uint64_t backlog = strtoull(argv[2], NULL, 10);
    double rates[2] = {atof(argv[3]), atof(argv[4])}, seconds = atof(argv[5]);
    static struct figures figures;
    histogram_init(&figures.queue_ms);
    histogram_init(&figures.total_us);
    struct tiermq *bulk = NULL, *client = NULL;
    struct tiermq_options options = {.brokers = argv[1], .name = "bench-tiers", .pending_max = 1000000, .pending_bytes_max = 1 << 30};
    if (tiermq_connect(&options, &bulk) < 0 || tiermq_connect(&options, &client) < 0) {
        fprintf(stderr, "bench-tiers: cannot connect to %s\n", argv[1]);
        return 1;
    }
    for (uint64_t i = 0; i < backlog || figures.backlog_accepted < backlog; i++) {
        if (i < backlog) {
            submit(bulk, "background", i, on_backlog_answer, on_backlog_accepted, &figures);
        }
        turn(bulk, i < backlog ? 0 : 100);
    }
    uint64_t sent[2] = {0, 0};
    int64_t began_ns = clock_monotonic_ns();
    for (;;) {
        double elapsed_s = (double)(clock_monotonic_ns() - began_ns) / 1e9;
        bool is_over = elapsed_s >= seconds;
        if (is_over && figures.standard_answered + figures.realtime_answered == sent[0] + sent[1]) {
            break;
        }
        while (!is_over && (double)sent[0] < rates[0] * elapsed_s) {
            submit(client, "standard", sent[0]++, on_standard_answer, NULL, &figures);
        }
        while (!is_over && (double)sent[1] < rates[1] * elapsed_s) {
            submit(client, "realtime", sent[1]++, on_realtime_answer, NULL, &figures);
        }
        turn(client, 1);
        turn(bulk, 0);
    }
    printf("{\"name\":\"tiers\",\"backlog\":%llu,\"realtime_per_s\":%.0f,\"realtime\":%llu,\"standard\":%llu,\"failed\":%llu,"
           "\"queue_p50_ms\":%llu,\"queue_p99_ms\":%llu,\"queue_max_ms\":%llu,\"total_p50_us\":%llu,\"total_p99_us\":%llu}\n",
           (unsigned long long)backlog, rates[1], (unsigned long long)figures.realtime_answered,
           (unsigned long long)figures.standard_answered, (unsigned long long)figures.failed,
           (unsigned long long)histogram_quantile(&figures.queue_ms, 0.5), (unsigned long long)histogram_quantile(&figures.queue_ms, 0.99),
           (unsigned long long)figures.queue_ms.max, (unsigned long long)histogram_quantile(&figures.total_us, 0.5),
           (unsigned long long)histogram_quantile(&figures.total_us, 0.99));
    tiermq_close(&client);
    tiermq_close(&bulk);
    return figures.failed > 0;
}
