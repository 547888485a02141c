/*
 * What is hard here is order: effects are carried out only after everything of the turn has been
 * stepped, so that one batch and one message for each peer hold all of it; what carrying them out
 * brings to light (a peer that is gone) waits for the next turn; and nothing but this file decides
 * when the process may end.
 */
#include "broker/broker.h"
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "broker/admin.h"
#include "broker/clients.h"
#include "broker/core/upkeep.h"
#include "broker/delivery.h"
#include "broker/held.h"
#include "broker/inquiry.h"
#include "broker/intake.h"
#include "broker/journal.h"
#include "broker/outbox.h"
#include "broker/peers.h"
#include "broker/store/store.h"
#include "broker/survey.h"
#include "broker/telemetry.h"
#include "broker/workers.h"
#include "common/arena.h"
#include "common/array.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/frame.h"
#include "common/http_admin.h"
#include "common/link.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/time_slice.h"

enum {
    LATER_FIRST = 64, /* events put off to the next turn */
    /*
     * Items of an envelope are larger decoded than packed; an envelope that needs more is refused.
     */
    ENVELOPE_ARENA_BYTES_MAX = 32 << 20,
    SILENT_HEARTBEATS = 4, /* a client that misses so many is forgotten: see wire.ClientWelcome */
    /*
     * Parts above this close their connection; up to it, a payload that is too large is answered.
     */
    PART_SLACK_BYTES = 4096,
};

/* ---- stepping the core ---- */

struct core_time broker_time(const struct broker *broker)
{
    /*
     * Both of the same instant: a recovery takes place within one turn of the loop, whose time
     * stands still meanwhile, and what the wall clock went on would be taken from the deadlines of
     * recovered jobs.
     */
    const int64_t now_ms = loop_now_ms(broker->loop);
    const int64_t since_ms = clock_monotonic_ms() - now_ms;
    return (struct core_time){.now_ms = now_ms, .unix_ms = clock_unix_ms() - since_ms};
}

void broker_step(struct broker *broker, const struct event *event)
{
    core_step(broker->core, broker_time(broker), event, broker->effects);
}

void broker_step_later(struct broker *broker, const struct event *event)
{
    if (array_reserve(&broker->later, &broker->later_capacity, broker->later_length + 1,
                      sizeof(*event), LATER_FIRST) < 0) {
        log_at(broker->log, LOG_ERROR, "out of memory; the process ends to recover from disk");
        abort();
    }
    broker->later[broker->later_length++] = *event;
    loop_again(broker->loop);
}

/* ---- what is stored and moved ---- */

static void tell_upkeep(struct broker *broker)
{
    struct store_stats stats;
    store_read_stats(broker->store, &stats);
    broker->upkeep_at_ms = loop_now_ms(broker->loop) + UPKEEP_MS;
    broker_step(broker,
                &(struct event){.kind = EVENT_UPKEEP,
                                .as.upkeep = {.stored_bytes = stats.disk_bytes,
                                              .traffic_bytes = link_bytes(broker->clients) +
                                                               link_bytes(broker->workers) +
                                                               link_bytes(broker->events)}});
}

/* ---- a turn ---- */

static void step_one_of_later(struct broker *broker, const struct event *event)
{
    struct peer *peer =
        event->kind == EVENT_CLIENT_GONE ? peers_by_number(broker->peers, event->peer) : NULL;
    if (peer != NULL) {
        clients_forget(broker, peer);
        return;
    }
    broker_step(broker, event);
}

static void step_later(struct broker *broker)
{
    for (size_t i = 0; i < broker->later_length; i++) {
        step_one_of_later(broker, &broker->later[i]);
    }
    broker->later_length = 0;
}

/* A worker is forgotten when the last lease it could hold has run out. */
static int64_t silent_ms_max(const struct broker *broker, enum peer_side side)
{
    const int64_t heartbeats_ms = SILENT_HEARTBEATS * broker->config->broker.heartbeat_ms;
    const int64_t lease_ms = broker->config->broker.lease_ms;
    return side == PEER_WORKER && lease_ms > heartbeats_ms ? lease_ms : heartbeats_ms;
}

/* Returns when the next peer of this side may have been silent for too long. */
static int64_t forget_silent(struct broker *broker, enum peer_side side, int64_t now_ms)
{
    const int64_t silent_max = silent_ms_max(broker, side);
    struct peer *peer = peers_most_silent(broker->peers, side);
    while (peer != NULL && now_ms - peer->heard_ms >= silent_max) {
        log_at(broker->log, LOG_INFO, "a silent peer is forgotten", log_text("name", peer->name),
               log_text("side", side == PEER_CLIENT ? "client" : "worker"),
               log_int("silent_ms", now_ms - peer->heard_ms));
        if (side == PEER_CLIENT) {
            clients_forget(broker, peer);
        } else {
            workers_forget(broker, peer, false);
        }
        peer = peers_most_silent(broker->peers, side);
    }
    return peer == NULL ? INT64_MAX : peer->heard_ms + silent_max;
}

static void carry_out(struct broker *broker)
{
    for (size_t i = 0; i < effects_length(broker->effects); i++) {
        delivery_carry_out(broker, effects_at(broker->effects, i));
    }
    journal_commit(broker);
    inquiries_ask(broker);
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static bool is_drained(struct broker *broker)
{
    struct store_stats stats;
    store_read_stats(broker->store, &stats);
    return core_is_idle(broker->core) && held_length(broker->held) == 0 &&
           stats.pending_batches == 0;
}

static void stop_when_drained(struct broker *broker, int64_t now_ms)
{
    const bool is_over = now_ms >= broker->drain_until_ms;
    if (!is_over && !is_drained(broker)) {
        return;
    }
    log_at(broker->log, LOG_INFO,
           is_over ? "stopping; leases are left to their workers" : "stopping; all is drained");
    loop_stop(broker->loop);
}

static void turn(void *context)
{
    struct broker *broker = context;
    const int64_t now_ms = loop_now_ms(broker->loop);
    store_poll(broker->store);
    step_later(broker);
    int64_t next_ms = forget_silent(broker, PEER_CLIENT, now_ms);
    next_ms = sooner(next_ms, forget_silent(broker, PEER_WORKER, now_ms));
    if (now_ms >= broker->upkeep_at_ms) {
        tell_upkeep(broker);
    }
    broker_step(broker, &(struct event){.kind = EVENT_TICK});
    carry_out(broker);
    next_ms = sooner(next_ms, surveys_tick(broker, now_ms));
    next_ms = sooner(next_ms, outboxes_flush(broker->outboxes, now_ms));
    effects_reset(broker->effects, broker->batch);
    next_ms = sooner(next_ms, core_next_deadline_ms(broker->core));
    next_ms = sooner(next_ms, broker->upkeep_at_ms);
    if (broker->is_draining) {
        stop_when_drained(broker, now_ms);
        next_ms = sooner(next_ms, broker->drain_until_ms);
    }
    loop_timer_set(broker->timer, next_ms);
}

/* Its turn is all that a timer has to bring about. */
static void on_timer(void *context)
{
    (void)context;
}

/* ---- signals ---- */

static void drain(struct broker *broker)
{
    if (broker->is_draining) {
        log_at(broker->log, LOG_WARN, "told to stop twice; stopping at once");
        loop_stop(broker->loop);
        return;
    }
    broker->is_draining = true;
    broker->drain_until_ms = loop_now_ms(broker->loop) + broker->config->broker.drain_timeout_ms;
    log_at(broker->log, LOG_INFO, "draining",
           log_int("timeout_ms", broker->config->broker.drain_timeout_ms));
    tell_upkeep(broker);
    broker_step(broker, &(struct event){.kind = EVENT_DRAIN});
}

static void log_lines(struct broker *broker, const char *message, const char *key, char *lines)
{
    char *rest = lines;
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        if (line[0] != '\0') {
            log_at(broker->log, LOG_WARN, message, log_text(key, line));
        }
    }
}

static void log_restart_needed(struct broker *broker, const struct config *after)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) {
        return;
    }
    (void)config_diff_restart(broker->config, after, out);
    if (fclose(out) == 0) {
        log_lines(broker, "a change takes effect at the next start", "key", text);
    }
    free(text);
}

static void apply(struct broker *broker, struct config **config)
{
    log_restart_needed(broker, *config);
    config_carry_over(broker->config, *config);
    const int r = core_reconfigure(broker->core, *config, broker_time(broker));
    if (r < 0) {
        config_carry_over(*config, broker->config); /* back */
        log_at(broker->log, LOG_ERROR,
               "the configuration was read again and cannot be applied; the old one holds",
               log_text("reason", r == -EINVAL ? "tiers, pools and the store change only at a start"
                                               : strerror(-r)));
        return;
    }
    log_set_level(broker->log, (enum log_level)(*config)->log.level);
    config_destroy(&broker->config);
    broker->config = TAKE(*config);
    log_at(broker->log, LOG_INFO, "reloaded", log_text("file", broker->config_path));
}

static void reload(struct broker *broker)
{
    CLEANUP(config_destroy) struct config *config = NULL;
    CLEANUP(config_errors_finish) struct config_errors errors = {0};
    const int r = config_read(broker->config_path, &config, &errors);
    if (r == 0) {
        apply(broker, &config);
        return;
    }
    for (size_t i = 0; i < errors.length; i++) {
        log_at(broker->log, LOG_ERROR, "configuration error; the old configuration holds",
               log_text("reason", errors.items[i].text));
    }
}

static void on_signal(void *context, int signal_number)
{
    if (signal_number == SIGHUP) {
        reload(context);
    } else {
        drain(context);
    }
}

/* ---- opening and closing ---- */

static int random_u64(uint64_t *ret_value)
{
    return getrandom(ret_value, sizeof(*ret_value), 0) == (ssize_t)sizeof(*ret_value) ? 0 : -errno;
}

/* Everything that neither touches disk nor network. */
static int create_parts(struct broker *broker)
{
    uint64_t seed = 0;
    int r = random_u64(&seed);
    r = r < 0 ? r : random_u64(&broker->incarnation);
    r = r < 0 ? r : loop_create(&broker->loop);
    r = r < 0 ? r : loop_watch_signals(broker->loop, on_signal, broker);
    r = r < 0 ? r : loop_timer_create(broker->loop, on_timer, broker, &broker->timer);
    r = r < 0 ? r : loop_add_turn_handler(broker->loop, turn, broker);
    r = r < 0 ? r : arena_create(ENVELOPE_ARENA_BYTES_MAX, &broker->arena);
    r = r < 0 ? r : effects_create(&broker->effects);
    r = r < 0 ? r : held_create(&broker->held);
    r = r < 0 ? r : inquiries_create(&broker->inquiries);
    r = r < 0 ? r : surveys_create(&broker->surveys);
    r = r < 0 ? r : peers_create(seed, &broker->peers);
    r = r < 0 ? r : telemetry_create(broker->config, broker->log, &broker->telemetry);
    r = r < 0 ? r : core_create(broker->config, seed, broker_time(broker), &broker->core);
    if (r < 0) {
        return r;
    }
    effects_reset(broker->effects, broker->batch);
    return 0;
}

static void note_end(struct broker *broker, enum peer_side side, const char *side_name,
                     const struct link_ending *ending)
{
    const struct peer *peer =
        ending->peer_bytes > 0 ? peers_find(broker->peers, side, ending->peer, ending->peer_bytes)
                               : NULL;
    telemetry_disconnected(broker->telemetry, side_name, peer == NULL ? NULL : peer->name, ending);
}

static void client_disconnected(void *context, const struct link_ending *ending)
{
    note_end(context, PEER_CLIENT, "client", ending);
}

static void worker_disconnected(void *context, const struct link_ending *ending)
{
    note_end(context, PEER_WORKER, "worker", ending);
}

/* Whoever hears events says no name there. */
static void listener_disconnected(void *context, const struct link_ending *ending)
{
    const struct broker *broker = context;
    telemetry_disconnected(broker->telemetry, "events", NULL, ending);
}

static enum exit_code bind_link(struct broker *broker, const char *key,
                                const struct link_options *options, link_fn *handler,
                                struct link **ret_link)
{
    const int r = link_create(broker->loop, options, handler, broker, ret_link);
    if (r < 0) {
        log_at(broker->log, LOG_ERROR, "an address cannot be bound; is another broker running?",
               log_text("key", key), log_text("address", options->endpoint),
               log_text("error", strerror(-r)));
        return EXIT_ADDRESS;
    }
    return EXIT_OK;
}

size_t broker_part_bytes_max(const struct config_broker *config)
{
    const size_t payload = (size_t)config->payload_bytes_max + config->payload_bytes_max / 4;
    const size_t envelope = FRAME_ENVELOPE_BYTES_MAX + FRAME_HEADER_BYTES;
    return (payload > envelope ? payload : envelope) + PART_SLACK_BYTES;
}

static enum exit_code bind_links(struct broker *broker)
{
    const struct config_broker *config = &broker->config->broker;
    struct link_options options = {
        .kind = LINK_ROUTER,
        .bind = true,
        .part_bytes_max = broker_part_bytes_max(config),
    };
    options.endpoint = config->listen_clients;
    options.on_disconnected = client_disconnected;
    enum exit_code code =
        bind_link(broker, "broker.listen_clients", &options, clients_receive, &broker->clients);
    if (code == EXIT_OK) {
        options.endpoint = config->listen_workers;
        options.on_disconnected = worker_disconnected;
        code =
            bind_link(broker, "broker.listen_workers", &options, workers_receive, &broker->workers);
    }
    if (code == EXIT_OK) {
        options.kind = LINK_PUB;
        options.endpoint = config->listen_events;
        options.on_disconnected = listener_disconnected;
        code = bind_link(broker, "broker.listen_events", &options, NULL, &broker->events);
    }
    return code;
}

static int create_outboxes(struct broker *broker)
{
    const struct outbox_options options = {
        .links = {[PEER_CLIENT] = broker->clients, [PEER_WORKER] = broker->workers},
        .on_failed = delivery_failed,
        .context = broker,
    };
    return outboxes_create(&options, &broker->outboxes);
}

static enum exit_code start(struct broker *broker)
{
    int r = create_parts(broker);
    if (r < 0) {
        log_at(broker->log, LOG_ERROR, "cannot start", log_text("error", strerror(-r)));
        return EXIT_INTERNAL;
    }
    enum exit_code code = journal_open(broker);
    time_slice_shorten(); /* not those of the store, which have begun */
    code = code != EXIT_OK ? code : bind_links(broker);
    code = code != EXIT_OK ? code : admin_open(broker);
    if (code != EXIT_OK) {
        return code;
    }
    r = create_outboxes(broker);
    if (r < 0) {
        log_at(broker->log, LOG_ERROR, "cannot start", log_text("error", strerror(-r)));
        return EXIT_INTERNAL;
    }
    return EXIT_OK;
}

enum exit_code broker_create(struct config **config, const char *config_path, bool salvages,
                             struct log *log, struct broker **ret_broker)
{
    CLEANUP(broker_destroy) struct broker *broker = calloc(1, sizeof(*broker));
    if (broker == NULL) {
        return EXIT_INTERNAL;
    }
    broker->log = log;
    broker->config = TAKE(*config);
    broker->batch = 1;
    broker->salvages = salvages;
    broker->config_path = config_path == NULL ? NULL : strdup(config_path);
    if (config_path != NULL && broker->config_path == NULL) {
        return EXIT_INTERNAL;
    }
    const enum exit_code code = start(broker);
    if (code == EXIT_OK) {
        *ret_broker = TAKE(broker);
    }
    return code;
}

void broker_destroy(struct broker **broker)
{
    struct broker *gone = TAKE(*broker);
    if (gone == NULL) {
        return;
    }
    inquiries_destroy(&gone->inquiries);
    surveys_destroy(&gone->surveys);
    http_admin_destroy(&gone->admin);
    outboxes_destroy(&gone->outboxes);
    held_destroy(&gone->held);
    link_destroy(&gone->clients);
    link_destroy(&gone->workers);
    link_destroy(&gone->events);
    store_close(&gone->store);
    effects_destroy(&gone->effects);
    core_destroy(&gone->core);
    peers_destroy(&gone->peers);
    telemetry_destroy(&gone->telemetry);
    arena_destroy(&gone->arena);
    loop_timer_destroy(&gone->timer);
    loop_destroy(&gone->loop);
    config_destroy(&gone->config);
    free(gone->config_path);
    free(gone->later);
    free(gone);
}

/*
 * Every peer is told to say hello: it gets no answer here any more, so it looks for another broker
 * or for this one's successor, at once instead of after four silent heartbeats.
 */
static void say_goodbye(struct broker *broker, enum peer_side side)
{
    for (struct peer *peer = peers_most_silent(broker->peers, side); peer != NULL;
         peer = peers_most_silent(broker->peers, side)) {
        const struct intake intake = {
            .broker = broker, .side = side, .id = peer->id, .id_bytes = peer->id_bytes};
        intake_refuse(&intake, WIRE__PROTOCOL_ERROR__CODE__ERROR_HELLO_REQUIRED,
                      "the broker shuts down; say hello to its successor");
        peers_remove(broker->peers, &peer);
    }
}

enum exit_code broker_run(struct broker *broker)
{
    const struct config_broker *config = &broker->config->broker;
    log_at(broker->log, LOG_INFO, "ready", log_text("name", config->name),
           log_text("clients", link_endpoint(broker->clients)),
           log_text("workers", link_endpoint(broker->workers)),
           log_text("events", link_endpoint(broker->events)),
           log_text("admin", http_admin_address(broker->admin)),
           log_text("store", config->store == STORE_MEMORY ? "memory" : config->data_dir),
           log_text("config", broker->config_path));
    const int r = loop_run(broker->loop);
    if (r < 0) {
        log_at(broker->log, LOG_ERROR, "the loop failed", log_text("error", strerror(-r)));
        return EXIT_INTERNAL;
    }
    outboxes_flush_all(broker->outboxes);
    say_goodbye(broker, PEER_CLIENT);
    say_goodbye(broker, PEER_WORKER);
    log_at(broker->log, LOG_INFO, "stopped");
    return EXIT_OK;
}
