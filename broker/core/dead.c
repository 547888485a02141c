#include "broker/core/dead.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "broker/core/conclude.h"
#include "broker/core/flight.h"
#include "broker/core/history.h"
#include "broker/core/keys.h"
#include "broker/core/lane.h"
#include "broker/core/result.h"

enum {
    SLOTS_FIRST = 64,
    HOLES_MIN = 64,        /* fewer are not worth to be closed */
    SWEEP_RETRY_MS = 1000, /* while it cannot go on */
    SWEEP_BURST_MS = 100,  /* of its rate, saved up at most */
    CREDIT_ONE = 1000,     /* a job: rates are a second's, times are milliseconds */
};
#define NUMBER_SHIFT 16 /* a number is a time and, below it, a count within that millisecond */

struct sweep {
    struct list_link link;
    uint64_t number;
    enum dead_action action;
    struct dead_filter filter; /* strings in `texts` */
    uint32_t rate_per_s;       /* 0: as fast as bounds allow */
    uint64_t cursor, last;     /* numbers of letters: done by now, and the last one of all */
    int64_t began_unix_ms, ended_unix_ms;
    int64_t credit, credited_ms;
    int64_t next_ms;
    uint64_t looked, done, skipped;
    const char *waits; /* why, in words; NULL: it does not */
    bool is_over, is_stopped;
    char texts[];
};

/* ---- letters ---- */

/* Codes are the core's own words; a record may bring others, and those beyond the bound are one. */
static const struct name *code_of(struct core *core, const char *text)
{
    struct name *code = names_find(&core->dead.codes, text);
    if (code != NULL) {
        return code;
    }
    if (core->dead.codes.length < CORE_DEAD_CODES &&
        names_add(&core->dead.codes, text, &code) == 0) {
        return code;
    }
    return core->dead.codes.items[0];
}

int dead_init(struct core *core)
{
    list_init(&core->dead.sweeps);
    struct name *code;
    int r = names_init(&core->dead.codes, core->random);
    if (r == 0) {
        r = names_add(&core->dead.codes, "other", &code);
    }
    /* Known before the first one, so that its counter is there to alert on. */
    return r < 0 ? r : names_add(&core->dead.codes, "poison", &code);
}

void dead_finish(struct core *core)
{
    struct list_link *link;
    while (core->dead.sweeps.head.next != NULL && (link = list_first(&core->dead.sweeps)) != NULL) {
        list_remove(&core->dead.sweeps, link);
        free(CONTAINER_OF(link, struct sweep, link));
    }
    names_finish(&core->dead.codes);
    free(core->dead.slots);
}

void dead_free_letter(struct job *job)
{
    if (job->place == PLACE_DEAD) {
        free(job->at.letter);
    }
}

static const char *or_empty(const char *text)
{
    return text == NULL ? "" : text;
}

/* At most `bytes_max`, cut between characters. */
static size_t cut_bytes(const char *text, size_t bytes_max)
{
    size_t bytes = strnlen(text, bytes_max + 1);
    if (bytes <= bytes_max) {
        return bytes;
    }
    for (bytes = bytes_max; bytes > 0 && ((uint8_t)text[bytes] & 0xc0) == 0x80;) {
        bytes--;
    }
    return bytes;
}

static const char *put_text(char **at, const char *text, size_t bytes)
{
    char *put = *at;
    memcpy(put, text, bytes);
    put[bytes] = '\0';
    *at += bytes + 1;
    return put;
}

static struct dead_letter *make_letter(struct core *core, const struct death *death)
{
    const char *text = or_empty(death->text);
    const char *worker = or_empty(death->worker);
    const char *provider = or_empty(death->provider);
    const size_t text_bytes = cut_bytes(text, DEAD_TEXT_BYTES);
    const size_t worker_bytes = cut_bytes(worker, DEAD_TEXT_BYTES);
    const size_t provider_bytes = cut_bytes(provider, DEAD_TEXT_BYTES);
    struct dead_letter *letter =
        malloc(sizeof(*letter) + text_bytes + worker_bytes + provider_bytes + 3);
    if (letter == NULL) {
        return NULL;
    }
    const uint64_t earliest = (uint64_t)death->unix_ms << NUMBER_SHIFT;
    char *at = letter->texts;
    letter->number = earliest > core->dead.number_last ? earliest : core->dead.number_last + 1;
    letter->died_unix_ms = death->unix_ms;
    letter->code = code_of(core, or_empty(death->code)[0] == '\0' ? "other" : death->code);
    letter->text = put_text(&at, text, text_bytes);
    letter->worker = put_text(&at, worker, worker_bytes);
    letter->provider = put_text(&at, provider, provider_bytes);
    return letter;
}

/* ---- the array ---- */

/* Closes the holes that were left by letters that went away. */
static void close_holes(struct dead *dead)
{
    size_t kept = 0;
    for (size_t i = dead->first; i < dead->end; i++) {
        if (dead->slots[i].job != NULL) {
            dead->slots[kept++] = dead->slots[i];
        }
    }
    dead->first = 0;
    dead->end = kept;
}

static bool make_room(struct dead *dead)
{
    if (dead->end < dead->capacity) {
        return true;
    }
    if (dead->length < dead->capacity / 2) {
        close_holes(dead);
        return true;
    }
    const size_t capacity = dead->capacity == 0 ? SLOTS_FIRST : dead->capacity * 2;
    struct dead_slot *slots = reallocarray(dead->slots, capacity, sizeof(*slots));
    if (slots == NULL) {
        return false;
    }
    dead->slots = slots;
    dead->capacity = capacity;
    return true;
}

/* The first slot whose number is not below `number`, a hole or not; the end when there is none. */
static size_t slot_from(const struct dead *dead, uint64_t number)
{
    size_t low = dead->first;
    size_t high = dead->end;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (dead->slots[middle].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct job *dead_oldest(const struct core *core)
{
    return core->dead.length == 0 ? NULL : core->dead.slots[core->dead.first].job;
}

/* The first letter behind `cursor`; NULL: there is none. */
static struct job *letter_behind(const struct core *core, uint64_t cursor)
{
    const struct dead *dead = &core->dead;
    size_t i = slot_from(dead, cursor + 1);
    while (i < dead->end && dead->slots[i].job == NULL) {
        i++;
    }
    return i < dead->end ? dead->slots[i].job : NULL;
}

bool dead_prepare(struct core *core, const struct death *death)
{
    struct dead_letter *letter = make_room(&core->dead) ? make_letter(core, death) : NULL;
    if (letter == NULL) {
        return false;
    }
    core->dead.number_last = letter->number;
    core->dead.prepared = letter;
    return true;
}

static bool keeps_payload_in_memory(const struct job *job)
{
    return (job->flags & JOB_DURABLE) == 0 && job->payload != NULL;
}

void dead_join(struct core *core, struct job *job)
{
    struct dead *dead = &core->dead;
    assert(dead->prepared != NULL && dead->end < dead->capacity); /* by dead_prepare() */
    job->at.letter = TAKE(dead->prepared);
    dead->slots[dead->end++] = (struct dead_slot){job->at.letter->number, job};
    dead->length++;
    dead->payload_bytes += keeps_payload_in_memory(job) ? blob_bytes(job->payload) : 0;
    job_tier(job)->stats.dead_letters[job->at.letter->code->index]++;
}

void dead_leave(struct core *core, struct job *job)
{
    struct dead *dead = &core->dead;
    struct dead_letter *letter = TAKE(job->at.letter);
    struct dead_slot *slot = &dead->slots[slot_from(dead, letter->number)];
    assert(slot->job == job);
    slot->job = NULL;
    dead->length--;
    dead->payload_bytes -= keeps_payload_in_memory(job) ? blob_bytes(job->payload) : 0;
    job_tier(job)->stats.dead_letters[letter->code->index]--;
    free(letter);
    while (dead->first < dead->end && dead->slots[dead->first].job == NULL) {
        dead->first++;
    }
    const size_t holes = dead->end - dead->first - dead->length;
    if (holes > HOLES_MIN && holes > dead->length) {
        close_holes(dead);
    }
}

static int compare_deaths(const void *a, const void *b)
{
    const struct dead_slot *x = a;
    const struct dead_slot *y = b;
    const int64_t at_x = x->job->at.letter->died_unix_ms;
    const int64_t at_y = y->job->at.letter->died_unix_ms;
    return at_x != at_y ? (at_x > at_y) - (at_x < at_y)
                        : memcmp(x->job->id.bytes, y->job->id.bytes, ID_BYTES);
}

void dead_restored(struct core *core)
{
    struct dead *dead = &core->dead;
    if (dead->end == dead->first) {
        return;
    }
    qsort(dead->slots + dead->first, dead->end - dead->first, sizeof(*dead->slots), compare_deaths);
    uint64_t number = 0;
    for (size_t i = dead->first; i < dead->end; i++) {
        struct dead_letter *letter = dead->slots[i].job->at.letter;
        const uint64_t earliest = (uint64_t)letter->died_unix_ms << NUMBER_SHIFT;
        number = earliest > number ? earliest : number + 1;
        letter->number = dead->slots[i].number = number;
    }
    dead->number_last = number;
}

bool dead_may_keep_payload(const struct core *core, const struct job *job)
{
    return job->payload != NULL && core->dead.payload_bytes + blob_bytes(job->payload) <=
                                       core->limits.results_memory_bytes_max / DEAD_PAYLOAD_SHARE;
}

/* ---- dropping ---- */

void dead_drop(struct core *core, struct job *job)
{
    if ((job->flags & JOB_DURABLE) != 0) {
        conclude_delete_records(core, job);
    }
    job_destroy(core, &job);
}

/* ---- requeueing ---- */

/* Why it cannot be requeued now, in words; NULL: it can. `ret_never`: nor later. */
static const char *why_not(const struct core *core, const struct job *job, bool *ret_never)
{
    const struct tier *tier = job_tier(job);
    const struct tenant *tenant = job_tenant(job);
    const bool is_durable = (job->flags & JOB_DURABLE) != 0;
    *ret_never = !is_durable && job->payload == NULL;
    if (*ret_never) {
        return "its payload was not kept: it was in memory, and there was no room for more";
    }
    if (core->is_draining) {
        return "the broker is shutting down";
    }
    if (is_durable && core->store_is_down) {
        return "the broker cannot write to its disk now";
    }
    if (tier->jobs >= tier->jobs_max || tier->bytes + job->payload_bytes > tier->bytes_max) {
        return "the tier's queue is full";
    }
    if (tenant->jobs >= tenant->jobs_max ||
        tenant->bytes + job->payload_bytes > tenant->bytes_max) {
        return "the tenant's queue is full";
    }
    return NULL;
}

static void note_in_history(struct core *core, struct job *job)
{
    Record__AttemptRecord record = RECORD__ATTEMPT_RECORD__INIT;
    record.attempt = job->attempt;
    record.error_code = "requeued";
    record.error_text = "an operator requeued the dead letter: failures and losses count anew";
    record.ended_unix_ms = core->unix_ms;
    record.next = RECORD__ATTEMPT_NEXT__NEXT_REQUEUED;
    history_add(core, job, &record);
}

/* A life as if it had been submitted now, at the end of its queue, so that no other has to wait for
 * it. */
static void begin_anew(struct core *core, struct job *job)
{
    job->failures = job->tried = job->unsaid = 0;
    job->losses = job->backoffs = 0;
    job->delay_ms = 0;
    job->sequence = ++core->sequence;
    job->submitted_ms = core->now_ms;
    job->deadline_ms = core->now_ms + job_tier(job)->deadline_ms;
    job->flags &= (uint16_t) ~(JOB_LEASE_LOST | JOB_HAS_KEY | JOB_RETRIES);
    if (key_of_job(core, &job->id) != NULL) {
        job->flags |= JOB_HAS_KEY;
    }
}

/* What why_not() has nothing against. */
static void requeue(struct core *core, struct job *job)
{
    result_withdraw(core, job, job->at.letter->died_unix_ms);
    begin_anew(core, job);
    note_in_history(core, job);
    job_move(core, job, PLACE_BACKING_OFF); /* for its letter to go: a follower's place uses the same field */
    flight_enter(core, job);
    conclude_update_record(core, job);
    job_tier(job)->stats.dead_requeued++;
    if ((job->flags & JOB_DURABLE) != 0) {
        effects_set_urgent(core->effects);
    }
}

void dead_one(struct core *core, const struct event *event)
{
    struct job *job = job_find(core, &event->as.dead_one.job_id);
    bool never;
    if (job == NULL || job->place != PLACE_DEAD) {
        return;
    }
    if (event->as.dead_one.action == DEAD_REQUEUE) {
        if (why_not(core, job, &never) == NULL) {
            core_note(core, NOTE_DEAD_REQUEUED, job, "", "by an operator", job->attempt);
            requeue(core, job);
        }
        return;
    }
    core_note(core, NOTE_DEAD_DROPPED, job, job->at.letter->code->text, "by an operator",
              job->attempt);
    job_tier(job)->stats.dead_dropped++;
    dead_drop(core, job);
}

/* ---- filters ---- */

static bool fits_text(const char *wanted, const char *text)
{
    return wanted == NULL || strcmp(wanted, text) == 0;
}

static bool fits(const struct dead_filter *filter, const struct job *job)
{
    const struct queue *queue = job->flow->queue;
    const struct dead_letter *letter = job->at.letter;
    return fits_text(filter->tenant, job_tenant(job)->name->text) &&
           fits_text(filter->tier, queue->lane->tier->name->text) &&
           fits_text(filter->route, queue->route->text) &&
           fits_text(filter->code, letter->code->text) &&
           fits_text(filter->worker, letter->worker) &&
           fits_text(filter->provider, letter->provider) &&
           letter->died_unix_ms >= filter->from_unix_ms &&
           (filter->until_unix_ms == 0 || letter->died_unix_ms < filter->until_unix_ms);
}

enum { FILTER_TEXTS = 6 };

static const char **filter_text(struct dead_filter *filter, size_t index)
{
    const char **texts[FILTER_TEXTS] = {&filter->tenant, &filter->tier,   &filter->route,
                                        &filter->code,   &filter->worker, &filter->provider};
    return texts[index];
}

/* ---- sweeps ---- */

static struct sweep *make_sweep(const struct dead_filter *given)
{
    struct dead_filter filter = *given;
    size_t bytes = 0;
    for (size_t i = 0; i < FILTER_TEXTS; i++) {
        const char *text = *filter_text(&filter, i);
        bytes += text == NULL ? 0 : strlen(text) + 1;
    }
    struct sweep *sweep = calloc(1, sizeof(*sweep) + bytes);
    if (sweep == NULL) {
        return NULL;
    }
    char *at = sweep->texts;
    for (size_t i = 0; i < FILTER_TEXTS; i++) {
        const char **text = filter_text(&filter, i);
        *text = *text == NULL ? NULL : put_text(&at, *text, strlen(*text));
    }
    sweep->filter = filter;
    return sweep;
}

/* Room for one more: the oldest that is over is forgotten. */
static bool make_room_for_sweep(struct core *core)
{
    if (core->dead.sweeps.length < DEAD_SWEEPS_MAX) {
        return true;
    }
    list_for_each (&core->dead.sweeps, link) {
        struct sweep *sweep = CONTAINER_OF(link, struct sweep, link);
        if (sweep->is_over) {
            list_remove(&core->dead.sweeps, link);
            free(sweep);
            return true;
        }
    }
    return false;
}

static const char *action_word(const struct sweep *sweep)
{
    return sweep->action == DEAD_REQUEUE ? "requeue" : "drop";
}

void dead_sweep_begin(struct core *core, const struct event *event)
{
    struct sweep *sweep =
        make_room_for_sweep(core) ? make_sweep(&event->as.dead_sweep.filter) : NULL;
    if (sweep == NULL) {
        return; /* core_latest_sweep() tells */
    }
    sweep->number = ++core->dead.sweep_last;
    sweep->action = event->as.dead_sweep.action;
    sweep->rate_per_s = event->as.dead_sweep.rate_per_s;
    sweep->last = core->dead.number_last;
    sweep->began_unix_ms = core->unix_ms;
    sweep->credit = CREDIT_ONE;
    sweep->credited_ms = sweep->next_ms = core->now_ms;
    list_append(&core->dead.sweeps, &sweep->link);
    core_note(core, NOTE_DEAD_SWEEP, NULL, action_word(sweep), "began", (int64_t)sweep->number);
}

static void end_sweep(struct core *core, struct sweep *sweep, bool is_stopped)
{
    sweep->is_over = true;
    sweep->is_stopped = is_stopped;
    sweep->ended_unix_ms = core->unix_ms;
    sweep->waits = NULL;
    core_note(core, NOTE_DEAD_SWEEP, NULL, action_word(sweep),
              effects_format(core->effects, "%s: %llu done, %llu skipped",
                             is_stopped ? "stopped" : "ended", (unsigned long long)sweep->done,
                             (unsigned long long)sweep->skipped),
              (int64_t)sweep->number);
}

void dead_sweep_stop(struct core *core, const struct event *event)
{
    list_for_each (&core->dead.sweeps, link) {
        struct sweep *sweep = CONTAINER_OF(link, struct sweep, link);
        if (sweep->number == event->as.dead_stop.number && !sweep->is_over) {
            end_sweep(core, sweep, true);
        }
    }
}

static void earn_credit(const struct core *core, struct sweep *sweep)
{
    const int64_t burst_most = (int64_t)sweep->rate_per_s * SWEEP_BURST_MS;
    const int64_t most = burst_most > CREDIT_ONE ? burst_most : CREDIT_ONE;
    const int64_t elapsed_ms = core->now_ms - sweep->credited_ms;
    const int64_t earned =
        elapsed_ms < SWEEP_RETRY_MS * 1000 ? elapsed_ms * sweep->rate_per_s : most;
    sweep->credited_ms = core->now_ms;
    sweep->credit = sweep->credit + earned < most ? sweep->credit + earned : most;
}

/* False: it has to wait. */
static bool sweep_one(struct core *core, struct sweep *sweep, struct job *job)
{
    bool never = false;
    sweep->waits = sweep->action == DEAD_REQUEUE ? why_not(core, job, &never) : NULL;
    if (sweep->waits != NULL && !never) {
        sweep->next_ms = core->now_ms + SWEEP_RETRY_MS;
        return false;
    }
    if (never) {
        sweep->waits = NULL;
        sweep->skipped++;
        return true;
    }
    if (sweep->action == DEAD_REQUEUE) {
        requeue(core, job);
    } else {
        job_tier(job)->stats.dead_dropped++;
        dead_drop(core, job);
    }
    sweep->done++;
    sweep->credit -= CREDIT_ONE;
    return true;
}

static bool has_credit(struct core *core, struct sweep *sweep)
{
    if (sweep->rate_per_s == 0 || sweep->credit >= CREDIT_ONE) {
        return true;
    }
    const int64_t missing = CREDIT_ONE - sweep->credit;
    sweep->next_ms = core->now_ms + (missing + sweep->rate_per_s - 1) / sweep->rate_per_s;
    return false;
}

/* Goes on until a bound of this tick, its rate or something else stops it. */
static void run_sweep(struct core *core, struct sweep *sweep)
{
    const uint64_t done_most = sweep->done + DEAD_JOBS_PER_TICK;
    earn_credit(core, sweep);
    sweep->next_ms = core->now_ms;
    for (int looks = 0; looks < DEAD_LOOKS_PER_TICK && sweep->done < done_most; looks++) {
        struct job *job = letter_behind(core, sweep->cursor);
        if (job == NULL || job->at.letter->number > sweep->last) {
            end_sweep(core, sweep, false);
            return;
        }
        const uint64_t number = job->at.letter->number;
        if (fits(&sweep->filter, job)) {
            if (!effects_reserve(core->effects, HISTORY_MAX + 8) || !has_credit(core, sweep) ||
                !sweep_one(core, sweep, job)) {
                return;
            }
        }
        sweep->looked++;
        sweep->cursor = number;
    }
}

void dead_tick(struct core *core)
{
    list_for_each (&core->dead.sweeps, link) {
        struct sweep *sweep = CONTAINER_OF(link, struct sweep, link);
        if (!sweep->is_over && sweep->next_ms <= core->now_ms) {
            run_sweep(core, sweep);
        }
    }
}

int64_t dead_next_deadline_ms(const struct core *core)
{
    int64_t at_ms = INT64_MAX;
    list_for_each (&core->dead.sweeps, link) {
        const struct sweep *sweep = CONTAINER_OF(link, struct sweep, link);
        if (!sweep->is_over && sweep->next_ms < at_ms) {
            at_ms = sweep->next_ms;
        }
    }
    return at_ms;
}

/* ---- for operators ---- */

static void fill_view(const struct core *core, const struct job *job,
                      struct core_dead_view *ret_view)
{
    const struct queue *queue = job->flow->queue;
    const struct dead_letter *letter = job->at.letter;
    bool never;
    const char *why = why_not(core, job, &never);
    *ret_view = (struct core_dead_view){
        .id = job->id,
        .number = letter->number,
        .died_unix_ms = letter->died_unix_ms,
        .tenant = job_tenant(job)->name->text,
        .tier = queue->lane->tier->name->text,
        .route = queue->route->text,
        .code = letter->code->text,
        .text = letter->text,
        .worker = letter->worker,
        .provider = letter->provider,
        .attempts = job_attempts(job),
        .losses = job->losses,
        .payload_bytes = job->payload_bytes,
        .is_durable = (job->flags & JOB_DURABLE) != 0,
        .payload = job->payload,
        .why_not = why == NULL ? "" : why,
        .is_lost = never,
    };
}

int core_view_dead(const struct core *core, const struct id *job_id,
                   struct core_dead_view *ret_view)
{
    const struct job *job = job_find(core, job_id);
    if (job == NULL || job->place != PLACE_DEAD) {
        return -ENOENT;
    }
    fill_view(core, job, ret_view);
    return 0;
}

uint64_t core_visit_dead(const struct core *core, const struct dead_filter *filter, uint64_t cursor,
                         size_t limit,
                         void (*visit)(void *context, const struct core_dead_view *view),
                         void *context)
{
    const struct dead *dead = &core->dead;
    size_t visited = 0;
    const size_t first = slot_from(dead, cursor + 1);
    for (size_t i = first; i < dead->end && i - first < CORE_DEAD_LOOKS_MAX && visited < limit;
         i++) {
        const struct job *job = dead->slots[i].job;
        cursor = dead->slots[i].number;
        if (job != NULL && fits(filter, job)) {
            struct core_dead_view view;
            fill_view(core, job, &view);
            visit(context, &view);
            visited++;
        }
    }
    return letter_behind(core, cursor) == NULL ? 0 : cursor;
}

uint64_t core_latest_sweep(const struct core *core)
{
    return core->dead.sweep_last;
}

void core_visit_sweeps(const struct core *core,
                       void (*visit)(void *context, const struct core_sweep_view *view),
                       void *context)
{
    list_for_each (&core->dead.sweeps, link) {
        const struct sweep *sweep = CONTAINER_OF(link, struct sweep, link);
        const struct core_sweep_view view = {
            .number = sweep->number,
            .action = sweep->action,
            .filter = &sweep->filter,
            .rate_per_s = sweep->rate_per_s,
            .began_unix_ms = sweep->began_unix_ms,
            .ended_unix_ms = sweep->ended_unix_ms,
            .looked = sweep->looked,
            .done = sweep->done,
            .skipped = sweep->skipped,
            .waits = sweep->waits == NULL ? "" : sweep->waits,
            .is_over = sweep->is_over,
            .is_stopped = sweep->is_stopped,
        };
        visit(context, &view);
    }
}
