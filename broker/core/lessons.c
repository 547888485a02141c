#include "broker/core/lessons.h"
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/decision.h"
#include "broker/core/record.h"
#include "broker/core/upstream.h"
#include "common/choice.h"

enum { PREFIX_BYTES = 5, KEY_BYTES = PREFIX_BYTES + 8, PERMILLE = 1000 };
static const char PREFIX[PREFIX_BYTES] = {'l', 'e', 'a', 'r', 'n'};
static const double COMPLEXITY_BYTE_MAX = 254;
static const double SUM_MAX = 1e6; /* of a record; decayed sums do not come near */

/* ---- records ---- */

static const char *task_text(const struct core *core, const struct learning_cell *cell)
{
    return decision_task_name(core->tenant[cell->key.tenant], cell->key.task);
}

static const char *tenant_text(const struct core *core, const struct learning_cell *cell)
{
    return core->tenants.items[cell->key.tenant]->text;
}

static const char *model_text(const struct core *core, const struct learning_cell *cell)
{
    return core->models.items[cell->key.model]->text;
}

/* The same after a restart. */
static void write_key(const struct core *core, const struct learning_cell *cell,
                      uint8_t ret_key[KEY_BYTES])
{
    const char *tenant = tenant_text(core, cell), *model = model_text(core, cell);
    const char *task = task_text(core, cell);
    uint64_t hash = XXH3_64bits(tenant, strlen(tenant));
    hash = XXH3_64bits_withSeed(task, strlen(task), hash);
    hash = htobe64(XXH3_64bits_withSeed(model, strlen(model), hash));
    memcpy(ret_key, PREFIX, PREFIX_BYTES);
    memcpy(ret_key + PREFIX_BYTES, &hash, sizeof(hash));
}

static void unlist(struct core *core, struct learning_cell *cell)
{
    if (cell->is_listed) {
        list_remove(&core->lessons.unrecorded, &cell->link);
        cell->is_listed = false;
    }
}

static void forgotten(void *context, struct learning_cell *cell)
{
    struct core *core = context;
    unlist(core, cell);
    if (cell->has_record && core->effects != NULL) {
        uint8_t key[KEY_BYTES];
        write_key(core, cell, key);
        core_delete(core, STORE_META, key, sizeof(key));
    }
}

static void write_record(struct core *core, struct learning_cell *cell)
{
    Record__LearningRecord record = RECORD__LEARNING_RECORD__INIT;
    record.tenant = (char *)tenant_text(core, cell);
    record.task = (char *)task_text(core, cell);
    record.model = (char *)model_text(core, cell);
    record.good = cell->good;
    record.bad = cell->bad;
    record.complexity = cell->complexity;
    uint8_t key[KEY_BYTES];
    write_key(core, cell, key);
    core_put_record(core, STORE_META, key, sizeof(key), &record.base);
    cell->has_record = true;
}

static bool is_sum(double value)
{
    return isfinite(value) && value >= 0 && value <= SUM_MAX;
}

int lessons_restore(struct core *core, const void *value, size_t value_bytes)
{
    assert(core->effects == NULL);
    assert(core->jobs.length + core->jobs.later_length == 0);
    assert(concluded_length(&core->concluded) == 0);
    Record__LearningRecord *record;
    if (record_read_learning(value, value_bytes, arena_protobuf_allocator(core->arena), &record) <
            0 ||
        !is_sum(record->good) || !is_sum(record->bad) ||
        !(record->complexity >= 0 && record->complexity <= record->good + record->bad + 1)) {
        return -EBADMSG;
    }
    struct tenant *tenant;
    struct name *model;
    int r = core_add_tenant(core, record->tenant, &tenant);
    r = r < 0 ? r : names_add(&core->models, record->model, &model);
    if (r < 0) {
        return r;
    }
    const uint8_t task = decision_task(core, tenant, record->task);
    if (task == 0) {
        return 0; /* the tenant has too many others */
    }
    const struct learning_key key = {
        .tenant = tenant->name->index, .model = model->index, .task = task};
    struct learning_cell *cell = learning_touch(&core->lessons.learning, &key);
    if (cell == NULL) {
        return -ENOMEM;
    }
    cell->good = record->good;
    cell->bad = record->bad;
    cell->complexity = record->complexity;
    cell->has_record = true;
    return 0;
}

/* ---- learning ---- */

int lessons_init(struct core *core, uint64_t seed)
{
    list_init(&core->lessons.unrecorded);
    return learning_init(&core->lessons.learning, seed, forgotten, core);
}

void lessons_destroy(struct core *core)
{
    learning_finish(&core->lessons.learning);
}

static bool is_on(const struct core *core)
{
    return core->routing.learn == SWITCH_ON;
}

static double complexity_of(uint8_t byte)
{
    return byte == 0 ? -1 : (byte - 1) / COMPLEXITY_BYTE_MAX;
}

static bool teaches(const struct concluded_entry *entry)
{
    return entry->task != 0 && entry->model != 0 &&
           entry->cache != WIRE__CACHE_STATUS__CACHE_NEAR_HIT &&
           entry->cache != WIRE__CACHE_STATUS__CACHE_STALE_HIT;
}

void lessons_note(struct core *core, const struct concluded_entry *entry, double score)
{
    if (!is_on(core) || !teaches(entry)) {
        return;
    }
    const struct learning_key key = {
        .tenant = entry->tenant, .model = (uint16_t)(entry->model - 1), .task = entry->task};
    struct learning_cell *cell = learning_touch(&core->lessons.learning, &key);
    if (cell == NULL) {
        return;
    }
    learning_note(cell, score, complexity_of(entry->complexity));
    if (!cell->is_listed) {
        cell->is_listed = true;
        if (list_is_empty(&core->lessons.unrecorded)) {
            core->lessons.due_ms = core->now_ms + LESSONS_RECORD_MS;
        }
        list_append(&core->lessons.unrecorded, &cell->link);
    }
}

struct learned lessons_read(const struct core *core, const struct job *job,
                            const struct upstream *upstream)
{
    if (!is_on(core) || job->task == 0) {
        return (struct learned){0};
    }
    const struct name *model = names_find(&core->models, upstream->model);
    const struct learning_cell *cell = NULL;
    if (model != NULL) {
        const struct learning_key key = {
            .tenant = job_tenant(job)->name->index, .model = model->index, .task = job->task};
        cell = learning_find(&core->lessons.learning, &key);
    }
    return learning_read(cell, upstream->traits.quality, complexity_of(job->needs.complexity));
}

bool lessons_explore(const struct core *core, const struct job *job)
{
    if (!is_on(core) || job->task == 0) {
        return false;
    }
    const struct lessons *lessons = &core->lessons;
    const uint64_t share = core->routing.explore_share_permille;
    /* Not one of the core's numbers: it may be asked more than once before there is an attempt. */
    const uint64_t hash = id_hash(&job->id, lessons->learning.cells.seed + job->attempt);
    return (hash >> 32) % PERMILLE < share &&
           (lessons->explored + 1) * PERMILLE <= (lessons->chosen + 1) * share;
}

void lessons_dispatched(struct core *core, const struct job *job, bool explores)
{
    if (is_on(core) && job->task != 0) {
        core->lessons.chosen++;
        core->lessons.explored += explores;
        job_tier(job)->stats.explored += explores;
    }
}

/* ---- time ---- */

int64_t lessons_next_deadline_ms(const struct core *core)
{
    const struct lessons *lessons = &core->lessons;
    if (list_is_empty(&lessons->unrecorded) || core->store_is_down) {
        return INT64_MAX;
    }
    return core->is_draining ? core->now_ms : lessons->due_ms;
}

bool lessons_tick(struct core *core)
{
    struct list *unrecorded = &core->lessons.unrecorded;
    if (core->now_ms < lessons_next_deadline_ms(core)) {
        return true;
    }
    for (int i = 0; !list_is_empty(unrecorded); i++) {
        if (i == LESSONS_RECORDS_A_TICK || !effects_reserve(core->effects, 1)) {
            return false;
        }
        struct learning_cell *cell =
            CONTAINER_OF(list_first(unrecorded), struct learning_cell, link);
        unlist(core, cell);
        write_record(core, cell);
    }
    return true;
}

/* Of the first upstream with this model; 0: there is none any more. */
static double grade_of(const struct core *core, const char *model)
{
    for (size_t i = 0; i < core->upstreams_length; i++) {
        if (strcmp(core->upstreams[i]->model, model) == 0) {
            return core->upstreams[i]->traits.quality;
        }
    }
    return 0;
}

void core_visit_lessons(const struct core *core,
                        void (*visit)(void *context, const struct core_lesson_view *view),
                        void *context)
{
    const struct list *list = &core->lessons.learning.by_use;
    for (struct list_link *link = list->head.previous; link != &list->head; link = link->previous) {
        const struct learning_cell *cell = CONTAINER_OF(link, struct learning_cell, by_use);
        const double weight = cell->good + cell->bad;
        visit(context,
              &(struct core_lesson_view){
                  .tenant = tenant_text(core, cell),
                  .task = task_text(core, cell),
                  .model = model_text(core, cell),
                  .weight = weight,
                  .mean = weight > 0 ? cell->good / weight : 0,
                  .grades = learning_read(cell, grade_of(core, model_text(core, cell)), -1).grades,
              });
    }
}
