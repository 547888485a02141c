/*
 * broker: the program around the core: one loop that turns bytes into events, and effects into
 * messages and records.
 *
 * A turn is: what arrived is handed to core_step() at once, message by message; then the store's
 * answers and whoever fell silent; then EVENT_TICK; then the effects are carried out: records as
 * one batch to the store, answers to the peers' outboxes (or held, until their batch is durable),
 * and each outbox leaves as one message.
 *
 * What lies in this folder beside it:
 *   peers, outbox, held      who is connected, what is on its way, what waits for the disk
 *   intake, clients, workers bytes to events
 *   delivery, journal        effects to messages and to records
 *   admin, admin_cache, admin_dead, inquiry, survey, telemetry
 *                            what operators see and may change
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/core.h"
#include "broker/core/effects.h"
#include "broker/core/event.h"
#include "broker/denials.h"
#include "common/attributes.h"
#include "common/exit_codes.h"

struct arena;
struct config;
struct held;
struct http_admin;
struct inquiries;
struct link;
struct log;
struct loop;
struct loop_timer;
struct outboxes;
struct peers;
struct store;
struct surveys;
struct telemetry;

struct broker {
    struct log *log;       /* not owned */
    char *config_path;     /* NULL: the defaults hold. Owned */
    struct config *config; /* what holds now */
    struct loop *loop;
    struct core *core;
    struct effects *effects; /* of this turn */
    struct store *store;
    struct link *clients;
    struct link *workers;
    struct link *events;
    struct http_admin *admin;
    struct inquiries *inquiries;
    struct surveys *surveys;
    struct denials denials;
    struct telemetry *telemetry;
    struct peers *peers;
    struct outboxes *outboxes;
    struct held *held;
    struct arena *arena;      /* of the envelope that is being read */
    struct loop_timer *timer; /* the soonest of all deadlines */
    uint64_t batch;           /* number of this turn's records */
    uint64_t durable;         /* this batch and all before it are */
    uint64_t incarnation;     /* differs with every start */
    uint64_t event_sequence;  /* of the last event published */
    struct event *later;      /* found while effects were carried out; stepped in the next turn */
    size_t later_length, later_capacity;
    bool is_draining; /* told to stop */
    bool is_store_down;
    bool salvages;
    uint64_t salvage_lost; /* at this start: changes, and ranges of keys */
    int64_t drain_until_ms;
    int64_t upkeep_at_ms; /* when what is stored and moved is told next */
};

/*
 * Opens the store, recovers, binds. What goes wrong is logged in words. `salvages`: replaces the store's
 * data by what can be read of it before.
 * Takes: *config; `config_path` is where a reload reads it again (copied, may be NULL).
 * Returns EXIT_OK with *ret_broker, or what the program is to exit with.
 */
MUST_USE enum exit_code broker_create(struct config **config, const char *config_path,
                                      bool salvages, struct log *log, struct broker **ret_broker);
void broker_destroy(struct broker **broker);
/* Serves until it is told to stop (SIGTERM, SIGINT) and has drained. */
MUST_USE enum exit_code broker_run(struct broker *broker);

/* ------------------------------------------------------------- for the files of this folder */

/* Of a message of a client or worker; a larger one closes its connection. */
size_t broker_part_bytes_max(const struct config_broker *config);
struct core_time broker_time(const struct broker *broker);
void broker_step(struct broker *broker, const struct event *event);
/*
 * For events found while effects are carried out. Its strings and blobs must outlive the turn:
 * there are none.
 */
void broker_step_later(struct broker *broker, const struct event *event);
