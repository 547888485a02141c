#include "broker/core/pause.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/dispatch.h"
#include "broker/core/lane.h"
#include "broker/core/record.h"
#include "broker/core/worker.h"

enum { PAUSE_KEY_BYTES = 5 + 1 + 16 }; /* "pause", kind, hash of the name */

static const char *const SUBJECTS[] = {"route", "tier", "tenant", "worker"};

static struct pause *find(const struct core *core, enum pause_subject subject, const char *name)
{
    list_for_each (&core->pauses, link) {
        struct pause *pause = CONTAINER_OF(link, struct pause, link);
        if (pause->subject == subject && strcmp(pause->name, name) == 0) {
            return pause;
        }
    }
    return NULL;
}

static struct name *name_of(const struct core *core, enum pause_subject subject, const char *text)
{
    switch (subject) {
    case PAUSE_ROUTE:
        return names_find(&core->routes, text);
    case PAUSE_TIER:
        return names_find(&core->tiers, text);
    case PAUSE_TENANT:
        return names_find(&core->tenants, text);
    case PAUSE_WORKER:
        break;
    }
    return NULL;
}

static bool is_known(const struct core *core, enum pause_subject subject, const char *name)
{
    return subject == PAUSE_WORKER || name_of(core, subject, name) != NULL;
}

/* ---- applying ---- */

/* NULL: not paused. */
static void apply_to_worker(struct core *core, struct worker *worker, const struct pause *pause)
{
    const bool was_drained = worker->is_drained;
    const bool was_stopped = worker->is_held || worker->is_drained;
    worker->is_held = pause != NULL && pause->mode == PAUSE_HOLD;
    worker->is_drained = pause != NULL && pause->mode == PAUSE_DRAIN;
    for (size_t i = 0; was_stopped && pause == NULL && i < worker->pools_length; i++) {
        worker->pools[i]->served_since_ms = core->now_ms;
    }
    if (worker->is_drained != was_drained) {
        effects_add(core->effects, EFFECT_WORKER_DRAIN, worker->peer, 0)->as.worker_drain.drain =
            worker->is_drained;
    }
    worker_refresh(core, worker);
}

static void apply_to_name(struct core *core, struct name *name, const struct pause *pause)
{
    const bool was_held = name->is_held;
    name->is_held = pause != NULL && pause->mode == PAUSE_HOLD;
    name->opened_ms = was_held && !name->is_held ? core->now_ms : name->opened_ms;
    name->is_refused = pause != NULL && pause->mode == PAUSE_DRAIN;
}

static void refresh_holds(struct core *core)
{
    lane_refresh_holds(core);
    dispatch_put_back_held(core);
}

static void apply(struct core *core, enum pause_subject subject, const char *text,
                  const struct pause *pause)
{
    if (subject == PAUSE_WORKER) {
        struct worker *worker = worker_find_name(core, text);
        if (worker != NULL) {
            apply_to_worker(core, worker, pause);
        }
        return;
    }
    struct name *name = name_of(core, subject, text);
    if (name != NULL) {
        apply_to_name(core, name, pause);
        refresh_holds(core);
    }
}

const char *pause_reason(const struct core *core, enum pause_subject subject, const char *name)
{
    const struct pause *pause = find(core, subject, name);
    return pause == NULL ? "" : pause->reason;
}

void pause_apply_to_names(struct core *core)
{
    list_for_each (&core->pauses, link) {
        const struct pause *pause = CONTAINER_OF(link, struct pause, link);
        struct name *name = name_of(core, pause->subject, pause->name);
        if (name != NULL) {
            apply_to_name(core, name, pause);
        }
    }
    refresh_holds(core);
}

void pause_apply_to_worker(struct core *core, struct worker *worker)
{
    apply_to_worker(core, worker, find(core, PAUSE_WORKER, worker->name));
}

/* ---- records ---- */

static void write_key(enum pause_subject subject, const char *name,
                      uint8_t ret_key[PAUSE_KEY_BYTES])
{
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(&hash, XXH3_128bits(name, strlen(name)));
    static const uint8_t prefix[5] = {'p', 'a', 'u', 's', 'e'};
    memcpy(ret_key, prefix, sizeof(prefix));
    ret_key[5] = (uint8_t)subject;
    memcpy(ret_key + 6, hash.digest, sizeof(hash.digest));
}

static void write_record(struct core *core, const struct pause *pause)
{
    uint8_t key[PAUSE_KEY_BYTES];
    write_key(pause->subject, pause->name, key);
    Record__PauseRecord record = RECORD__PAUSE_RECORD__INIT;
    record.subject_kind = pause->subject;
    record.subject = (char *)pause->name;
    record.mode = pause->mode;
    record.reason = pause->reason;
    record.since_unix_ms = pause->since_unix_ms;
    core_put_record(core, STORE_META, key, sizeof(key), &record.base);
    effects_set_urgent(core->effects);
}

static void delete_record(struct core *core, const struct pause *pause)
{
    uint8_t key[PAUSE_KEY_BYTES];
    write_key(pause->subject, pause->name, key);
    core_delete(core, STORE_META, key, sizeof(key));
    effects_set_urgent(core->effects);
}

/* ---- beginning, ending ---- */

static void free_pause(struct core *core, struct pause *pause)
{
    list_remove(&core->pauses, &pause->link);
    free(pause->reason);
    free(pause);
}

/* NULL: no memory, or too many. An earlier one of the same subject is replaced. */
static struct pause *make(struct core *core, enum pause_subject subject, enum pause_mode mode,
                          const char *name, const char *reason, int64_t since_unix_ms)
{
    struct pause *before = find(core, subject, name);
    if (before == NULL && core->pauses.length >= PAUSES_MAX) {
        return NULL;
    }
    const size_t name_bytes = strlen(name) + 1;
    struct pause *pause = calloc(1, sizeof(*pause) + name_bytes);
    char *copy = strdup(reason);
    if (pause == NULL || copy == NULL) {
        free(pause);
        free(copy);
        return NULL;
    }
    pause->subject = subject;
    pause->mode = mode;
    pause->since_unix_ms = since_unix_ms;
    pause->reason = copy;
    memcpy(pause->name, name, name_bytes);
    if (before != NULL) {
        free_pause(core, before);
    }
    list_append(&core->pauses, &pause->link);
    return pause;
}

void pause_add(struct core *core, const struct event *event)
{
    const char *name = event->as.pause.name;
    const enum pause_subject subject = event->as.pause.subject;
    if (!is_known(core, subject, name)) {
        return;
    }
    const char *reason = event->as.pause.reason == NULL ? "" : event->as.pause.reason;
    struct pause *pause = make(core, subject, event->as.pause.mode, name, reason, core->unix_ms);
    if (pause == NULL) {
        return;
    }
    write_record(core, pause);
    apply(core, subject, name, pause);
    core_note(core, NOTE_PAUSED, NULL, name, pause->mode == PAUSE_HOLD ? "hold" : "drain", subject);
    core_publish(core, WIRE__EVENT__KIND__EVENT_PAUSED, SUBJECTS[subject], name, reason);
}

void pause_end(struct core *core, const struct event *event)
{
    const char *name = event->as.pause.name;
    const enum pause_subject subject = event->as.pause.subject;
    struct pause *pause = find(core, subject, name);
    if (pause == NULL) {
        return;
    }
    delete_record(core, pause);
    free_pause(core, pause);
    apply(core, subject, name, NULL);
    core_note(core, NOTE_RESUMED, NULL, name, "", subject);
    core_publish(core, WIRE__EVENT__KIND__EVENT_RESUMED, SUBJECTS[subject], name, "");
}

int pause_restore(struct core *core, const void *value, size_t value_bytes)
{
    Record__PauseRecord *record;
    int r = record_read_pause(value, value_bytes, arena_protobuf_allocator(core->arena), &record);
    if (r < 0) {
        return r;
    }
    const enum pause_subject subject = (enum pause_subject)record->subject_kind;
    const enum pause_mode mode = (enum pause_mode)record->mode;
    if (record->subject_kind > PAUSE_WORKER || record->mode > PAUSE_DRAIN) {
        return -EBADMSG;
    }
    const struct pause *pause =
        make(core, subject, mode, record->subject, record->reason, record->since_unix_ms);
    if (pause == NULL) {
        return -ENOMEM;
    }
    if (subject != PAUSE_WORKER) {
        apply(core, subject, pause->name, pause);
    }
    return 0;
}

void pause_destroy_all(struct core *core)
{
    struct list_link *link;
    while ((link = list_first(&core->pauses)) != NULL) {
        free_pause(core, CONTAINER_OF(link, struct pause, link));
    }
}
