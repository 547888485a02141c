/*
 * Messages and events to a worker's membership at a broker, whatever the broker may be: it lives on,
 * and what it says is well formed (links.h). News of upstreams (UpstreamState) come as events and in
 * the snapshot of a welcome.
 *
 * The input is a list of messages (links.h), each behind a byte of flags: whether it is an event,
 * whether the right header is put in front, whether answers can be sent, whether the turn ends, and
 * whether the oldest attempt that runs ends before it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/metrics.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/links.h"
#include "worker/attempt.h"
#include "worker/broker_link.h"
#include "worker/cache_host.h"
#include "worker/cache_mail.h"
#include "worker/route/upstreams.h"
#include "worker/telemetry.h"

enum {
    FLAG_EVENT = 1,
    FLAG_HEADER = 8,
    FLAG_ENDS = 16,
    FLAG_FULL = 32,
    FLAG_TURN = 64,
    SLOTS = 4,
};

struct worker {
    struct loop *loop;
    struct broker_link *link;
    struct attempt *running[SLOTS]; /* the oldest first */
    size_t running_length;
};

/* ---- what worker.c does, without a pipeline ---- */

static void end_attempt(struct worker *worker, size_t index)
{
    struct attempt *attempt = worker->running[index];
    worker->running_length--;
    for (size_t i = index; i < worker->running_length; i++) {
        worker->running[i] = worker->running[i + 1];
    }
    outcome_set(&attempt->outcome, WIRE__ATTEMPT_OUTCOME__ATTEMPT_UNAVAILABLE, "connection",
                "nobody is there");
    if (attempt->upstream_model != NULL) { /* as the router does, before the call */
        attempt->provider_name = strdup(attempt->upstream_provider);
        attempt->model = strdup(attempt->upstream_model);
        must_hold(attempt->provider_name != NULL && attempt->model != NULL);
        attempt->report.is_made = true;
    }
    attempt->report.code = "connection";
    must_hold(broker_link_answer(worker->link, attempt) == 0);
    attempt_destroy(&attempt);
}

static void dispatched(void *context, struct broker_link *link, const Wire__Dispatch *dispatch,
                       struct blob *payload)
{
    struct worker *worker = context;
    struct attempt *attempt = NULL;
    if (broker_link_answer_again(link, dispatch) || broker_link_carry_on(link, dispatch)) {
        return;
    }
    if (worker->running_length == SLOTS ||
        attempt_create(worker->loop, dispatch, payload, clock_monotonic_ms(), &attempt) < 0) {
        (void)!broker_link_defer(link, dispatch, "not taken"); /* its id may be malformed */
        return;
    }
    broker_link_hold(link, attempt);
    if (attempt->hedge_after_ms > 0) {
        broker_link_ask_hedge(link, attempt);
    }
    worker->running[worker->running_length++] = attempt;
    const int r = broker_link_send_chunk(link, attempt, attempt->chunks_sent, false, "data", 4);
    must_hold(r == 0 || r == -EAGAIN);
    attempt->chunks_sent += attempt->wants_stream ? 1 : 0;
}

static void cancelled(void *context, struct attempt *attempt, const char *reason)
{
    struct worker *worker = context;
    must_hold(reason != NULL);
    for (size_t i = 0; i < worker->running_length; i++) {
        if (worker->running[i] == attempt) {
            end_attempt(worker, i);
            return;
        }
    }
    abort(); /* it is none of the link's */
}

static void hedge_granted(void *context, struct attempt *attempt, const Wire__HedgeGrant *grant)
{
    const struct worker *worker = context;
    bool is_running = false;
    for (size_t i = 0; i < worker->running_length; i++) {
        is_running |= worker->running[i] == attempt;
    }
    must_hold(is_running && grant->upstream != NULL);
}

static void upstream_heard_of(void *context, const struct upstream *upstream)
{
    const struct worker *worker = context;
    const struct upstream *items;
    const size_t length = broker_link_upstreams(worker->link, &items);
    must_hold(length > 0 && length <= UPSTREAMS_MAX && upstream >= items &&
              upstream < items + length);
    must_hold(upstream_state_name(upstream->state)[0] != '\0');
    must_hold(broker_link_upstream_open_ms(worker->link, upstream->provider, upstream->model,
                                           clock_monotonic_ms()) >= 0);
}

/* What a worker without a cache says of it; and evidence comes back as it went out. */
static void invalidation_heard_of(void *context, struct broker_link *link,
                                  const Wire__CacheInvalidation *invalidation)
{
    (void)context;
    cache_host_invalidate(NULL, link, invalidation);
}

static void cache_is_behind(void *context, struct broker_link *link, const uint8_t *epoch,
                            uint64_t sequence)
{
    static const uint8_t no_epoch[CACHE_MAIL_EPOCH_BYTES] = {0};
    (void)context;
    (void)!cache_mail_applied(broker_link_mail(link), epoch == NULL ? no_epoch : epoch, sequence, 0, 0);
}

static void evidence_heard_of(void *context, struct broker_link *link, const Wire__CacheEvidence *evidence)
{
    (void)context;
    (void)!cache_mail_evidence(broker_link_mail(link), evidence);
}

static void denial_heard_of(void *context, const Wire__CacheDenial *denial)
{
    (void)context;
    cache_host_denial(NULL, denial);
}

static void asked(void *context, struct broker_link *link, const Wire__WorkerQuery *query)
{
    (void)context;
    cache_host_query(NULL, link, query);
}

/* ---- the input ---- */

static void receive_one(struct worker *worker, struct input *input)
{
    const uint8_t flags = input_byte(input);
    const bool is_event = (flags & FLAG_EVENT) != 0;
    struct link_message message;
    if ((flags & FLAG_ENDS) != 0 && worker->running_length > 0) {
        end_attempt(worker, 0);
    }
    links_set_full((flags & FLAG_FULL) != 0);
    links_take_message(input, is_event ? FRAME_EVENT : FRAME_BROKER_TO_WORKER,
                       (flags & FLAG_HEADER) != 0, &message);
    links_deliver(is_event ? LINK_SUB : LINK_DEALER, &message);
    links_message_finish(&message);
    if ((flags & FLAG_TURN) != 0) {
        if (broker_link_takes_credit(worker->link) &&
            broker_link_outstanding(worker->link) < SLOTS) {
            broker_link_grant(worker->link, SLOTS);
        }
        broker_link_flush(worker->link);
        must_hold(loop_turn(worker->loop, 0) == 0);
    }
}

static void leave(struct worker *worker)
{
    links_set_full(false);
    broker_link_drain(worker->link);
    broker_link_stop_all(worker->link, "the end");
    must_hold(broker_link_held(worker->link) == 0 && worker->running_length == 0);
    broker_link_flush(worker->link);
    broker_link_goodbye(worker->link);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static char pool[] = "default";
    char *pools[] = {pool};
    const struct broker_link_options options = {
        .endpoint = "tcp://fuzz",
        .events = "tcp://fuzz",
        .worker_name = "fuzz",
        .pools = pools,
        .pools_length = 1,
        .slots = SLOTS,
        .part_bytes_max = 1 << 20,
        .answers_bytes_max = 1 << 20,
        .answers_ttl_ms = 60000,
    };
    const struct broker_handler handler = {
        .on_dispatch = dispatched,
        .on_cancel = cancelled,
        .on_hedge = hedge_granted,
        .on_upstream = upstream_heard_of,
        .on_invalidation = invalidation_heard_of,
        .on_cache_behind = cache_is_behind,
        .on_evidence = evidence_heard_of,
        .on_denial = denial_heard_of,
        .on_query = asked};
    struct worker worker = {.running_length = 0};
    struct log *log = NULL;
    struct metrics *metrics = NULL;
    struct telemetry *telemetry = NULL;
    const int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
    must_hold(log_create("fuzz", LOG_DEBUG, quiet, &log) == 0);
    must_hold(metrics_create(&metrics) == 0 && telemetry_create(metrics, &telemetry) == 0);
    must_hold(loop_create(&worker.loop) == 0);
    must_hold(broker_link_create(worker.loop, log, telemetry, &options, &handler, &worker,
                                 &worker.link) == 0);
    struct input input = {.data = data, .bytes = bytes};
    while (input.bytes > 0) {
        receive_one(&worker, &input);
    }
    leave(&worker);
    broker_link_destroy(&worker.link);
    loop_destroy(&worker.loop);
    telemetry_destroy(&telemetry);
    metrics_destroy(&metrics);
    log_destroy(&log);
    (void)close(quiet);
    return 0;
}
