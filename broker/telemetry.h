/*
 * telemetry: the broker's metrics and the log lines of what the core notes. Every metric is
 * described in docs/metrics.md; the table in telemetry.c is where they are registered.
 *
 * Counters that the core keeps are copied when somebody asks (telemetry_collect()), the others
 * count here as it happens.
 */
#pragma once
#include <stdint.h>
#include "broker/core/core.h"
#include "broker/core/effects.h"
#include "broker/peers.h"
#include "broker/store/store.h"
#include "common/attributes.h"

struct config;
struct link_ending;
struct log;
struct metrics;
struct telemetry;

/* `log` is not owned. Errors: -ENOMEM. */
MUST_USE int telemetry_create(const struct config *config, struct log *log,
                              struct telemetry **ret_telemetry);
void telemetry_destroy(struct telemetry **telemetry);
struct metrics *telemetry_metrics(struct telemetry *telemetry);

/* What is copied from elsewhere before an exposition. */
struct denials;
struct telemetry_sources {
    const struct core *queue; /* for its upstreams */
    const struct config *config;
    const struct denials *denials;
    struct core_time now;
    struct core_stats core;
    struct store_stats store;
    uint64_t messages_sent;
    uint64_t answers_held;
    uint64_t salvage_lost;
};
void telemetry_collect(struct telemetry *telemetry, const struct telemetry_sources *sources);

/* What happens. */
void telemetry_protocol_error(struct telemetry *telemetry, enum peer_side side,
                              Wire__ProtocolError__Code code, const char *text);
void telemetry_peer_lost(struct telemetry *telemetry, const struct peer *peer, int error);
/* A connection has ended. `side`: client, worker, events; `name` as in its hello, NULL: not known.
 */
void telemetry_disconnected(struct telemetry *telemetry, const char *side, const char *name,
                            const struct link_ending *ending);
void telemetry_dispatched(struct telemetry *telemetry, uint8_t tier, int64_t queue_ms);
void telemetry_rejected(struct telemetry *telemetry, uint8_t tier, Wire__RejectReason reason);
void telemetry_committed(struct telemetry *telemetry, const struct store_stats *stats);
void telemetry_note(struct telemetry *telemetry, const struct effect *effect);
