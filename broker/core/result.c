#include "broker/core/result.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "broker/core/client.h"
#include "broker/core/feedback.h"
#include "broker/core/keys.h"
#include "broker/core/lane.h"
#include "broker/core/record.h"
#include "broker/core/status.h"

/* ---- results in memory ---- */

uint64_t result_hash(const struct table_link *link, uint64_t seed)
{
    return id_hash(&CONTAINER_OF((struct table_link *)link, struct kept_result, by_id)->job_id,
                   seed);
}

static struct kept_result *find_kept(const struct core *core, const struct id *job_id)
{
    struct table_link *link = table_first(&core->results, id_hash(job_id, core->results.seed));
    for (; link != NULL; link = link->next) {
        struct kept_result *kept = CONTAINER_OF(link, struct kept_result, by_id);
        if (id_equal(&kept->job_id, job_id)) {
            return kept;
        }
    }
    return NULL;
}

static size_t kept_bytes(const struct kept_result *kept)
{
    return sizeof(*kept) + kept->packed_bytes +
           (kept->payload == NULL ? 0 : blob_bytes(kept->payload));
}

static void free_kept(struct kept_result *kept)
{
    blob_unref(&kept->payload);
    free(kept);
}

static void drop_kept(struct core *core, struct kept_result *kept)
{
    struct concluded_entry *entry = concluded_find(&core->concluded, &kept->job_id);
    if (entry != NULL) {
        entry->flags &= (uint8_t)~CONCLUDED_RESULT_IN_MEMORY;
    }
    core->results_memory_bytes -= kept_bytes(kept);
    table_remove(&core->results, &kept->by_id);
    list_remove(&core->results_by_age, &kept->by_age);
    free_kept(kept);
}

static struct kept_result *oldest_kept(const struct core *core)
{
    struct list_link *link = list_first(&core->results_by_age);
    return link == NULL ? NULL : CONTAINER_OF(link, struct kept_result, by_age);
}

void result_destroy_all(struct core *core)
{
    struct kept_result *kept;
    while ((kept = oldest_kept(core)) != NULL) {
        list_remove(&core->results_by_age, &kept->by_age);
        free_kept(kept);
    }
}

/* ---- forgetting ---- */

void result_note_bound(struct core *core, enum bound bound)
{
    static const char *const subjects[] = {"results", "dead letters", "deduplication ids"};
    static const char *const texts[] = {
        "the oldest were dropped: broker.results_bytes_max or broker.results_memory_bytes_max",
        "the oldest were dropped: broker.dead_letters_max",
        "the window got shorter than broker.dedup_window: broker.dedup_ids_max",
    };
    if (core->now_ms >= core->bound_noted_ms[bound]) {
        core->bound_noted_ms[bound] = core->now_ms + 1000;
        core_note(core, NOTE_BOUND_REACHED, NULL, subjects[bound], texts[bound], 0);
    }
}

void result_forget_oldest(struct core *core)
{
    const struct concluded_entry *entry = concluded_oldest(&core->concluded);
    if ((entry->flags & CONCLUDED_RESULT_IN_MEMORY) != 0) {
        struct kept_result *kept = find_kept(core, &entry->id);
        if (kept != NULL) {
            drop_kept(core, kept);
        }
    }
    if ((entry->flags & CONCLUDED_HAS_KEY) != 0) {
        key_forget(core, &entry->id);
    }
    core->results_are_due |= (entry->flags & CONCLUDED_RESULT_ON_DISK) != 0;
    core->concluded_is_due |= (entry->flags & CONCLUDED_DURABLE) != 0;
    concluded_forget_oldest(&core->concluded);
}

void result_make_room(struct core *core)
{
    while (concluded_is_full(&core->concluded)) {
        result_forget_oldest(core);
    }
}

/*
 * Passes over the oldest entry that may have a result on disk; the record is deleted by range
 * later.
 */
static void drop_oldest_disk_result(struct core *core)
{
    struct concluded_entry *entry = concluded_results_oldest(&core->concluded);
    core->results_are_due |= (entry->flags & CONCLUDED_RESULT_ON_DISK) != 0;
    concluded_drop_disk_result(&core->concluded, entry);
    core->concluded.results_from++;
}

static void bound_results(struct core *core)
{
    while (core->concluded.results_disk_bytes > core->limits.results_bytes_max &&
           concluded_results_oldest(&core->concluded) != NULL) {
        drop_oldest_disk_result(core);
        result_note_bound(core, BOUND_RESULTS);
    }
    while (core->results_memory_bytes > core->limits.results_memory_bytes_max) {
        drop_kept(core, oldest_kept(core));
        result_note_bound(core, BOUND_RESULTS);
    }
}

/* ---- keeping ---- */

static const uint8_t *pack_result(struct core *core, const struct effect_result *result,
                                  size_t *ret_bytes)
{
    Wire__Result message = WIRE__RESULT__INIT;
    message.job_id = (ProtobufCBinaryData){ID_BYTES, (uint8_t *)result->job_id.bytes};
    message.state = result->state;
    message.error_code = (char *)result->error_code;
    message.error_text = (char *)result->error_text;
    message.attempts = result->attempts;
    message.queue_ms = (uint64_t)result->queue_ms;
    message.run_ms = (uint64_t)result->run_ms;
    message.complexity = result->complexity;
    message.abilities = result->abilities;
    message.usage = (Wire__Usage *)result->usage;
    message.worker = (char *)result->worker;
    message.has_payload = result->payload != NULL;
    message.retry_after_ms = (uint64_t)(result->retry_after_ms > 0 ? result->retry_after_ms : 0);
    if (result->has_leader) {
        message.led_by = (ProtobufCBinaryData){ID_BYTES, (uint8_t *)result->led_by.bytes};
    }
    const size_t bytes = wire__result__get_packed_size(&message);
    uint8_t *packed = effects_alloc(core->effects, bytes);
    *ret_bytes = wire__result__pack(&message, packed);
    return packed;
}

static void keep_on_disk(struct core *core, struct concluded_entry *entry,
                         const struct effect_result *result)
{
    size_t packed_bytes;
    const uint8_t *packed = pack_result(core, result, &packed_bytes);
    Record__ResultRecord record = RECORD__RESULT_RECORD__INIT;
    record.result = (ProtobufCBinaryData){packed_bytes, (uint8_t *)packed};
    record.payload_bytes = result->payload == NULL ? 0 : (uint32_t)blob_bytes(result->payload);
    const size_t head_bytes = record_result_head_bytes(&record);
    uint8_t *head = effects_alloc(core->effects, head_bytes);
    record_write_result_head(&record, head);
    uint8_t key[RECORD_TIME_KEY_BYTES];
    record_write_time_key(core->unix_ms, &result->job_id, key);
    core_put(core, STORE_RESULTS, key, sizeof(key), head, head_bytes, result->payload);
    concluded_keep_disk_result(&core->concluded, entry,
                               (uint32_t)head_bytes + record.payload_bytes);
}

static void write_concluded(struct core *core, const struct job *job,
                            const struct effect_result *result, const struct concluded_entry *entry)
{
    const struct idempotency *key =
        (job->flags & JOB_HAS_KEY) != 0 ? key_of_job(core, &job->id) : NULL;
    Record__ConcludedRecord record = RECORD__CONCLUDED_RECORD__INIT;
    record.attempt = result->attempt;
    record.state = result->state;
    record.tenant = job_tenant(job)->name->text;
    record.result_bytes = entry->result_bytes;
    feedback_fill_record(core, entry, &record);
    if (key != NULL) {
        record.idempotency_hash = (ProtobufCBinaryData){KEY_HASH_BYTES, (uint8_t *)key->hash};
    }
    uint8_t time_key[RECORD_TIME_KEY_BYTES];
    record_write_time_key(core->unix_ms, &job->id, time_key);
    core_put_record(core, STORE_CONCLUDED, time_key, sizeof(time_key), &record.base);
}

/* Without memory the result is not kept: as if it had been collected. */
static void keep_in_memory(struct core *core, struct concluded_entry *entry,
                           const struct effect_result *result)
{
    size_t packed_bytes;
    const uint8_t *packed = pack_result(core, result, &packed_bytes);
    struct kept_result *kept = malloc(sizeof(*kept) + packed_bytes);
    if (kept == NULL) {
        return;
    }
    kept->job_id = result->job_id;
    kept->kept_ms = core->now_ms;
    kept->payload = result->payload == NULL ? NULL : blob_ref(result->payload);
    kept->packed_bytes = packed_bytes;
    memcpy(kept->packed, packed, packed_bytes);
    table_insert(&core->results, &kept->by_id);
    list_append(&core->results_by_age, &kept->by_age);
    core->results_memory_bytes += kept_bytes(kept);
    entry->flags |= CONCLUDED_RESULT_IN_MEMORY;
}

bool result_is_shed(const struct effect_result *result)
{
    return result->state == WIRE__JOB_STATE__JOB_STATE_EXPIRED && result->retry_after_ms > 0;
}

/* Its place in the ring stays until it is the oldest; a later conclusion of the same id is found
 * first. */
void result_reopen(struct core *core, struct concluded_entry *entry)
{
    struct kept_result *kept =
        (entry->flags & CONCLUDED_RESULT_IN_MEMORY) != 0 ? find_kept(core, &entry->id) : NULL;
    if (kept != NULL) {
        drop_kept(core, kept);
    }
    result_release_key(core, entry);
}

void result_release_key(struct core *core, struct concluded_entry *entry)
{
    if ((entry->flags & CONCLUDED_HAS_KEY) != 0) {
        key_forget(core, &entry->id);
        entry->flags &= (uint8_t)~CONCLUDED_HAS_KEY;
    }
}

void result_keep(struct core *core, const struct job *job, const struct effect_result *result)
{
    if (concluded_is_full(&core->concluded)) {
        result_make_room(core);
        result_note_bound(core, BOUND_IDS);
    }
    const bool is_durable = (job->flags & JOB_DURABLE) != 0;
    struct concluded_entry *entry = concluded_add(&core->concluded, &job->id, core->unix_ms);
    if (entry == NULL) {
        key_forget(core, &job->id);
        return;
    }
    entry->tenant = job_tenant(job)->name->index;
    entry->attempt = result->attempt;
    concluded_set_state(entry, (uint8_t)result->state, result_is_shed(result));
    entry->flags = (uint8_t)((is_durable ? CONCLUDED_DURABLE : 0) |
                             ((job->flags & JOB_HAS_KEY) != 0 ? CONCLUDED_HAS_KEY : 0) |
                             job_tier(job)->index << CONCLUDED_TIER_SHIFT);
    feedback_remember(core, entry, job, result);
    if ((job->flags & JOB_DISCARD_RESULT) == 0) {
        if (is_durable) {
            keep_on_disk(core, entry, result);
        } else {
            keep_in_memory(core, entry, result);
        }
    }
    if (is_durable) {
        write_concluded(core, job, result, entry);
    }
    bound_results(core);
}

/* ---- withdrawing ---- */

/* All three, whatever is known of them in memory: what was forgotten there may still be stored. */
static void delete_conclusion(struct core *core, const struct id *job_id, int64_t unix_ms)
{
    uint8_t key[RECORD_MARK_KEY_BYTES];
    record_write_collected_key(unix_ms, job_id, key);
    core_delete(core, STORE_CONCLUDED, key, sizeof(key));
    core_delete(core, STORE_CONCLUDED, key, RECORD_TIME_KEY_BYTES);
    core_delete(core, STORE_RESULTS, key, RECORD_TIME_KEY_BYTES);
}

void result_withdraw(struct core *core, const struct job *job, int64_t at_unix_ms)
{
    struct concluded_entry *entry = concluded_find(&core->concluded, &job->id);
    if (entry != NULL) {
        struct kept_result *kept =
            (entry->flags & CONCLUDED_RESULT_IN_MEMORY) != 0 ? find_kept(core, &job->id) : NULL;
        if (kept != NULL) {
            drop_kept(core, kept);
        }
        at_unix_ms = concluded_unix_ms(&core->concluded, entry);
        concluded_withdraw(&core->concluded, entry);
    }
    if ((job->flags & JOB_DURABLE) != 0) {
        delete_conclusion(core, &job->id, at_unix_ms);
    }
}

/* ---- answering ---- */

static struct effect_result *add_result(struct core *core, uint64_t peer, const struct id *job_id,
                                        uint64_t batch)
{
    struct effect *effect = effects_add(core->effects, EFFECT_RESULT, peer, batch);
    effect->as.result.job_id = *job_id;
    effect->as.result.tier = UINT8_MAX;
    effect->as.result.error_code = effect->as.result.error_text = effect->as.result.worker = "";
    return &effect->as.result;
}

uint64_t result_promised_batch(const struct core *core, const struct id *job_id)
{
    const struct concluded_entry *entry = concluded_find(&core->concluded, job_id);
    const bool is_in_memory = entry != NULL && (entry->flags & CONCLUDED_DURABLE) == 0;
    return is_in_memory ? 0 : core_pending_batch(core);
}

/* Its record is damaged: no use to ask for it again. */
static void send_result_lost(struct core *core, const struct load *load)
{
    struct effect_result *result =
        add_result(core, load->peer, &load->job_id, core_pending_batch(core));
    result->state = WIRE__JOB_STATE__JOB_STATE_COLLECTED;
    result->error_code = "result_lost";
    result->error_text = "concluded earlier; its stored result is damaged";
    char text[ID_TEXT_BYTES];
    id_format(&load->job_id, text);
    core_note(core, NOTE_RECORD_DAMAGED, NULL, "results",
              effects_format(core->effects, "the stored result of job %s is damaged", text), 1);
}

static void send_collected(struct core *core, uint64_t peer, const struct id *job_id)
{
    struct effect_result *result =
        add_result(core, peer, job_id, result_promised_batch(core, job_id));
    result->state = WIRE__JOB_STATE__JOB_STATE_COLLECTED;
    result->error_code = "collected";
    result->error_text = "concluded earlier; its result is no longer kept";
}

static void send_kept(struct core *core, uint64_t peer, const struct kept_result *kept,
                      const struct concluded_entry *entry)
{
    if (!effects_reserve(core->effects, 1)) {
        status_add(core, peer, &entry->id, entry->state)->as.status.why =
            "too many results are asked for at once; wait for it again";
        return;
    }
    uint8_t *packed = effects_alloc(core->effects, kept->packed_bytes);
    memcpy(packed, kept->packed, kept->packed_bytes);
    struct effect_result *result = add_result(core, peer, &kept->job_id, 0);
    result->packed = packed;
    result->packed_bytes = kept->packed_bytes;
    result->payload = kept->payload == NULL ? NULL : blob_ref(kept->payload);
}

static void load_result(struct core *core, uint64_t peer, const struct concluded_entry *entry)
{
    const uint64_t token = loads_open(&core->loads, LOAD_RESULT, &entry->id, peer);
    if (token == 0) {
        status_add(core, peer, &entry->id, entry->state)->as.status.why =
            "too many results are being read; wait for it again";
        return;
    }
    struct effect *effect = effects_add(core->effects, EFFECT_LOAD, 0, 0);
    effect->as.load.family = STORE_RESULTS;
    effect->as.load.token = token;
    effect->as.load.key_bytes = RECORD_TIME_KEY_BYTES;
    record_write_time_key(concluded_unix_ms(&core->concluded, entry), &entry->id,
                          effect->as.load.key);
}

static void send_dead_letter(struct core *core, uint64_t peer, const struct job *job)
{
    struct effect_result *result = add_result(core, peer, &job->id, core_pending_batch(core));
    result->state = WIRE__JOB_STATE__JOB_STATE_DEAD;
    result->error_code = "dead_letter";
    result->error_text = "it is a dead letter; its result is no longer kept";
    result->attempts = job_attempts(job);
}

void result_send(struct core *core, const struct client *client, const struct id *job_id)
{
    const struct concluded_entry *entry = concluded_find(&core->concluded, job_id);
    const struct job *job = job_find(core, job_id);
    if (entry == NULL || entry->tenant != client->tenant->name->index) {
        if (job != NULL && job_tenant(job) == client->tenant) {
            send_dead_letter(core, client->peer, job);
        } else {
            status_send(core, client, job_id);
        }
        return;
    }
    const struct kept_result *kept =
        (entry->flags & CONCLUDED_RESULT_IN_MEMORY) != 0 ? find_kept(core, job_id) : NULL;
    if (kept != NULL) {
        send_kept(core, client->peer, kept, entry);
    } else if ((entry->flags & CONCLUDED_RESULT_ON_DISK) != 0) {
        load_result(core, client->peer, entry);
    } else {
        send_collected(core, client->peer, job_id);
    }
}

void result_wait(struct core *core, const struct event *event)
{
    const struct client *client = client_expect(core, event->peer);
    if (client == NULL) {
        return;
    }
    const struct id *job_id = &event->as.job.job_id;
    struct job *job = job_find(core, job_id);
    if (event->as.job.status_only) {
        status_send(core, client, job_id);
    } else if (job != NULL && job_is_pending(job) && job_tenant(job) == client->tenant) {
        waiter_add(core, job, event->peer, event->as.job.stream, event->as.job.stream_chunks);
        status_send_pending(core, event->peer, job);
    } else {
        result_send(core, client, job_id);
    }
}

void result_collected(struct core *core, const struct event *event)
{
    const struct client *client = client_expect(core, event->peer);
    if (client == NULL) {
        return;
    }
    struct concluded_entry *entry = concluded_find(&core->concluded, &event->as.job.job_id);
    if (entry == NULL || entry->tenant != client->tenant->name->index) {
        return;
    }
    struct kept_result *kept =
        (entry->flags & CONCLUDED_RESULT_IN_MEMORY) != 0 ? find_kept(core, &entry->id) : NULL;
    if (kept != NULL) {
        drop_kept(core, kept);
    }
    if ((entry->flags & CONCLUDED_RESULT_ON_DISK) != 0) {
        /* Without the mark every collected result would count as kept again after a restart. */
        static const uint8_t version = RECORD_VERSION;
        uint8_t key[RECORD_MARK_KEY_BYTES];
        record_write_collected_key(concluded_unix_ms(&core->concluded, entry), &entry->id, key);
        core_put(core, STORE_CONCLUDED, key, sizeof(key), &version, sizeof(version), NULL);
        core_delete(core, STORE_RESULTS, key, RECORD_TIME_KEY_BYTES);
        concluded_drop_disk_result(&core->concluded, entry);
    }
}

static void release_blob(void *context)
{
    struct blob *blob = context;
    blob_unref(&blob);
}

/* The payload within the record, without copying it. */
static struct blob *payload_of(struct blob *record, size_t offset)
{
    struct blob *payload = NULL;
    const uint8_t *data = blob_data(record);
    if (blob_wrap(data + offset, blob_bytes(record) - offset, release_blob, record, &payload) ==
        0) {
        (void)blob_ref(record);
    }
    return payload;
}

/* The result is there, but not now. */
static void send_unread(struct core *core, const struct load *load, const char *why)
{
    const struct concluded_entry *entry = concluded_find(&core->concluded, &load->job_id);
    const Wire__JobState state =
        entry == NULL ? WIRE__JOB_STATE__JOB_STATE_COLLECTED : (Wire__JobState)entry->state;
    status_add(core, load->peer, &load->job_id, state)->as.status.why = why;
}

static void send_loaded(struct core *core, const struct load *load, struct blob *value)
{
    Record__ResultRecord *record;
    size_t offset;
    if (record_read_result(blob_data(value), blob_bytes(value), effects_allocator(core->effects),
                           &record, &offset) < 0) {
        send_result_lost(core, load);
        return;
    }
    struct blob *payload = record->payload_bytes > 0 ? payload_of(value, offset) : NULL;
    if (record->payload_bytes > 0 && payload == NULL) {
        send_unread(core, load, "the broker is out of memory; wait for it again");
        return;
    }
    struct effect_result *result =
        add_result(core, load->peer, &load->job_id, core_pending_batch(core));
    result->packed = record->result.data;
    result->packed_bytes = record->result.len;
    result->payload = payload;
}

void result_loaded(struct core *core, const struct load *load, int error, struct blob *value)
{
    if (client_find(core, load->peer) == NULL) {
        return;
    }
    struct job *job = job_find(core, &load->job_id);
    if (job != NULL && job_is_pending(job)) { /* its conclusion was withdrawn meanwhile */
        waiter_add(core, job, load->peer, false, 0);
        status_send_pending(core, load->peer, job);
    } else if (error == 0) {
        send_loaded(core, load, value);
    } else if (error == -ENOENT) {
        send_collected(core, load->peer, &load->job_id);
    } else if (error == -EBADMSG) {
        send_result_lost(core, load);
    } else {
        send_unread(core, load, "its result cannot be read from disk now; wait for it again");
    }
}

/* ---- time ---- */

static void delete_range(struct core *core, enum store_family family, int64_t *from_unix_ms,
                         int64_t to_unix_ms)
{
    if (to_unix_ms <= *from_unix_ms) {
        return;
    }
    static const struct id least = {{0}};
    uint8_t key[RECORD_TIME_KEY_BYTES];
    struct effect *effect = effects_add(core->effects, EFFECT_DELETE_RANGE, 0, 0);
    effect->as.range.family = family;
    effect->as.range.from_bytes = effect->as.range.to_bytes = 8;
    record_write_time_key(*from_unix_ms, &least, key);
    memcpy(effect->as.range.from, key, 8);
    record_write_time_key(to_unix_ms, &least, key);
    memcpy(effect->as.range.to, key, 8);
    core->batch_last = effects_batch(core->effects);
    *from_unix_ms = to_unix_ms;
}

/* Until when all entries are forgotten; `entry` is the oldest that is not. */
static int64_t forgotten_until(const struct core *core, const struct concluded_entry *entry)
{
    return entry == NULL ? core->concluded.last_unix_ms
                         : concluded_unix_ms(&core->concluded, entry);
}

static void write_horizon(struct core *core)
{
    uint8_t *value = effects_alloc(core->effects, RECORD_TIME_KEY_BYTES + 1);
    static const struct id none = {{0}};
    value[0] = RECORD_VERSION;
    record_write_time_key(core->concluded.horizon_unix_ms, &none, value + 1);
    core_put(core, STORE_META, "horizon", 7, value, 9, NULL);
}

static void delete_forgotten(struct core *core)
{
    if (core->results_are_due) {
        core->results_are_due = false;
        delete_range(core, STORE_RESULTS, &core->results_deleted_unix_ms,
                     forgotten_until(core, concluded_results_oldest(&core->concluded)));
    }
    if (core->concluded_is_due) {
        core->concluded_is_due = false;
        delete_range(core, STORE_CONCLUDED, &core->concluded_deleted_unix_ms,
                     forgotten_until(core, concluded_oldest(&core->concluded)));
        write_horizon(core);
    }
}

static bool is_older(const struct core *core, const struct concluded_entry *entry, int64_t age_ms)
{
    return entry != NULL && concluded_unix_ms(&core->concluded, entry) + age_ms <= core->unix_ms;
}

void result_tick(struct core *core)
{
    if (core->now_ms < core->housekeeping_at_ms) {
        return;
    }
    int left = TIMERS_PER_TICK;
    for (; left > 0 &&
           is_older(core, concluded_oldest(&core->concluded), core->limits.dedup_window_ms);
         left--) {
        result_forget_oldest(core);
    }
    for (; left > 0 &&
           is_older(core, concluded_results_oldest(&core->concluded), core->limits.result_ttl_ms);
         left--) {
        drop_oldest_disk_result(core);
    }
    struct kept_result *kept;
    for (; left > 0 && (kept = oldest_kept(core)) != NULL &&
           kept->kept_ms + core->limits.result_ttl_ms <= core->now_ms;
         left--) {
        drop_kept(core, kept);
    }
    bound_results(core);
    delete_forgotten(core);
    core->housekeeping_at_ms = left == 0 ? core->now_ms : core->now_ms + HOUSEKEEPING_MS;
}

int64_t result_next_deadline_ms(const struct core *core)
{
    return concluded_length(&core->concluded) == 0 ? INT64_MAX : core->housekeeping_at_ms;
}
