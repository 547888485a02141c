#include "broker/core/feedback.h"
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include "broker/core/client.h"
#include "broker/core/decision.h"
#include "broker/core/lane.h"
#include "broker/core/lessons.h"
#include "broker/core/quality.h"
#include "broker/core/record.h"
#include "broker/core/result.h"

enum {
    EFFECTS_A_FEEDBACK =
        4,             /* mark, note, answer, and the record of a lesson that is forgotten for it */
    RETRY_MS = 1000,   /* when there is no room for it, or no store */
    MODELS_MAX = 4096, /* names that workers may bring in; beyond, a model is not known */
};
static const double SCORE_STEPS = 254;

/* ---- what a conclusion's feedback will count for ---- */

static uint16_t model_of(struct core *core, const char *model)
{
    struct name *name = names_find(&core->models, model);
    if (name == NULL && model[0] != '\0' && core->models.length < MODELS_MAX &&
        names_add(&core->models, model, &name) < 0) {
        name = NULL;
    }
    return name == NULL ? 0 : (uint16_t)(name->index + 1);
}

void feedback_remember(struct core *core, struct concluded_entry *entry, const struct job *job,
                       const struct effect_result *result)
{
    entry->route = (uint16_t)(job->flow->queue->route->index + 1);
    entry->task = job->task;
    entry->complexity = job->needs.complexity;
    if (result->usage != NULL) {
        entry->model = model_of(core, result->usage->model);
        entry->cache = (uint8_t)result->usage->cache;
    }
}

void feedback_restore(struct core *core, struct concluded_entry *entry,
                      const Record__ConcludedRecord *record)
{
    const struct name *tier = names_find(&core->tiers, record->tier);
    const struct name *route = names_find(&core->routes, record->route);
    entry->flags |= (uint8_t)((tier == NULL ? 0 : tier->index) << CONCLUDED_TIER_SHIFT);
    entry->route = route == NULL ? 0 : (uint16_t)(route->index + 1);
    entry->model = model_of(core, record->model);
    entry->task = decision_task(core, core->tenant[entry->tenant], record->task);
    entry->cache = (uint8_t)record->cache;
    entry->complexity = (uint8_t)record->complexity;
}

void feedback_fill_record(const struct core *core, const struct concluded_entry *entry,
                          Record__ConcludedRecord *record)
{
    record->tier = core->tier[concluded_tier(entry)].name->text;
    record->route = entry->route == 0 ? "" : core->routes.items[entry->route - 1]->text;
    record->model = entry->model == 0 ? "" : core->models.items[entry->model - 1]->text;
    record->task = (char *)decision_task_name(core->tenant[entry->tenant], entry->task);
    record->cache = entry->cache;
    record->complexity = entry->complexity;
}

/* ---- marks ---- */

static void write_mark(struct core *core, const struct concluded_entry *entry)
{
    uint8_t *value = effects_alloc(core->effects, 2);
    value[0] = RECORD_VERSION;
    value[1] = entry->score;
    uint8_t key[RECORD_MARK_KEY_BYTES];
    record_write_feedback_key(concluded_unix_ms(&core->concluded, entry), &entry->id, key);
    core_put(core, STORE_CONCLUDED, key, sizeof(key), value, 2, NULL);
}

int feedback_restore_mark(struct core *core, const void *key, const void *value, size_t value_bytes)
{
    int64_t unix_ms;
    struct id job_id;
    const uint8_t *bytes = value;
    if (record_read_time_key(key, RECORD_TIME_KEY_BYTES, &unix_ms, &job_id) < 0 ||
        value_bytes != 2 || bytes[0] != RECORD_VERSION || bytes[1] == 0) {
        return -EBADMSG;
    }
    struct concluded_entry *entry = concluded_find(&core->concluded, &job_id);
    if (entry != NULL) { /* else it was forgotten to keep a bound */
        entry->score = bytes[1];
    }
    return 0;
}

/* ---- taking it ---- */

struct verdict {
    Wire__FeedbackOutcome outcome;
    const char *error;
    int64_t retry_after_ms;
};

static struct verdict refuse(const char *error)
{
    return (struct verdict){WIRE__FEEDBACK_OUTCOME__FEEDBACK_REFUSED, error, 0};
}

static struct verdict put_off(const char *error, int64_t retry_after_ms)
{
    return (struct verdict){WIRE__FEEDBACK_OUTCOME__FEEDBACK_PUT_OFF, error, retry_after_ms};
}

/* What is said depends on the id alone, so that nobody learns of another tenant's jobs. */
static struct verdict not_known(const struct core *core, const struct id *job_id)
{
    return (struct verdict){WIRE__FEEDBACK_OUTCOME__FEEDBACK_UNKNOWN,
                            id_unix_ms(job_id) <= core->concluded.horizon_unix_ms
                                ? "it is too old: ids are remembered for broker.dedup_window"
                                : "no job of this tenant that the broker remembers",
                            0};
}

/* 1 to 255. */
static uint8_t byte_of(double score)
{
    return (uint8_t)(1 + lround(score * SCORE_STEPS));
}

static struct verdict accept_it(struct core *core, struct concluded_entry *entry,
                                const struct event *event)
{
    const double score = event->as.feedback.score;
    const char *comment = event->as.feedback.comment;
    entry->score = byte_of(score);
    if ((entry->flags & CONCLUDED_DURABLE) != 0) {
        write_mark(core, entry);
        effects_set_urgent(core->effects);
    }
    quality_add(core, entry, score, comment);
    lessons_note(core, entry, score);
    if (comment[0] != '\0') {
        const char *model = entry->model == 0 ? "" : core->models.items[entry->model - 1]->text;
        core_note(core, NOTE_FEEDBACK, NULL, model, comment, lround(score * 100));
        struct effect *note = effects_at(core->effects, effects_length(core->effects) - 1);
        note->as.note.has_job = true;
        note->as.note.job_id = entry->id;
        note->as.note.tenant = core->tenants.items[entry->tenant]->text;
    }
    return (struct verdict){WIRE__FEEDBACK_OUTCOME__FEEDBACK_ACCEPTED, NULL, 0};
}

static struct verdict judge(struct core *core, const struct client *client,
                            const struct event *event)
{
    const struct id *job_id = &event->as.feedback.job_id;
    struct concluded_entry *entry = concluded_find(&core->concluded, job_id);
    if (entry == NULL || entry->tenant != client->tenant->name->index) {
        const struct job *job = job_find(core, job_id);
        return job != NULL && job_tenant(job) == client->tenant && job_is_pending(job)
                   ? refuse("it is not concluded yet")
                   : not_known(core, job_id);
    }
    if (entry->state != WIRE__JOB_STATE__JOB_STATE_SUCCEEDED) {
        return refuse("it has no answer: it did not succeed");
    }
    if (entry->score == 0 && (entry->flags & CONCLUDED_DURABLE) != 0 && core->store_is_down) {
        return put_off("the store of the broker is down", RETRY_MS);
    }
    if (entry->score == 0) {
        return accept_it(core, entry, event);
    }
    return entry->score == byte_of(event->as.feedback.score)
               ? (struct verdict){WIRE__FEEDBACK_OUTCOME__FEEDBACK_REPEATED, NULL, 0}
               : refuse("feedback on it was given before; it counts once");
}

void feedback_take(struct core *core, const struct event *event)
{
    const struct client *client = client_expect(core, event->peer);
    if (client == NULL) {
        return;
    }
    const int64_t wait_ms =
        throttle_take(&client->tenant->feedback, FEEDBACK_EACH_MS, FEEDBACK_BURST, core->now_ms);
    const struct verdict verdict =
        wait_ms > 0 ? put_off("too much feedback of this tenant at once", wait_ms)
        : !effects_reserve(core->effects, EFFECTS_A_FEEDBACK)
            ? put_off("the broker has too much to do at once", RETRY_MS)
            : judge(core, client, event);
    core->quality.outcomes[verdict.outcome]++;
    const bool is_taken = verdict.error == NULL;
    struct effect *effect =
        effects_add(core->effects, EFFECT_FEEDBACK_TAKEN, event->peer,
                    is_taken ? result_promised_batch(core, &event->as.feedback.job_id) : 0);
    effect->as.feedback_taken.job_id = event->as.feedback.job_id;
    effect->as.feedback_taken.outcome = verdict.outcome;
    effect->as.feedback_taken.error = verdict.error;
    effect->as.feedback_taken.retry_after_ms = verdict.retry_after_ms;
}
