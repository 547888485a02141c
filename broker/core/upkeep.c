#include "broker/core/upkeep.h"
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/event.h"
#include "broker/core/purse.h"
#include "broker/core/record.h"
#include "broker/core/state.h"
#include "broker/core/worker.h"
#include "common/config.h"
#include "common/price.h"

enum { KEY_HEAD_BYTES = 7, KEY_BYTES = KEY_HEAD_BYTES + 4 + 8, KILOBYTE = 1000 };

struct row {
    struct list_link link;
    char *pool; /* empty: of the broker itself; owned */
    struct core_upkeep sum;
    int32_t day;
    bool is_unrecorded;
};

/* ---- rows ---- */

/* From the end: today's are looked for most. */
static struct row *find(const struct upkeep *upkeep, int32_t day, const char *pool)
{
    const struct list_link *end = &upkeep->rows.head;
    for (struct list_link *link = end->previous; link != end; link = link->previous) {
        struct row *row = CONTAINER_OF(link, struct row, link);
        if (row->day == day && strcmp(row->pool, pool) == 0) {
            return row;
        }
    }
    return NULL;
}

/* NULL: no memory. */
static struct row *find_or_make(struct upkeep *upkeep, int32_t day, const char *pool)
{
    struct row *row = find(upkeep, day, pool);
    if (row != NULL) {
        return row;
    }
    row = calloc(1, sizeof(*row));
    char *name = strdup(pool);
    if (row == NULL || name == NULL) {
        free(row);
        free(name);
        return NULL;
    }
    row->day = day;
    row->pool = name;
    list_append(&upkeep->rows, &row->link);
    return row;
}

static void drop(struct upkeep *upkeep, struct row *row)
{
    list_remove(&upkeep->rows, &row->link);
    free(row->pool);
    free(row);
}

/* ---- adding ---- */

static uint64_t product(uint64_t a, uint64_t b)
{
    uint64_t result;
    return __builtin_mul_overflow(a, b, &result) ? UINT64_MAX : result;
}

static void add(struct row *row, const struct core_upkeep *more)
{
    struct core_upkeep *sum = &row->sum;
    sum->worker_share_ms = price_add(sum->worker_share_ms, more->worker_share_ms);
    sum->gpu_share_ms = price_add(sum->gpu_share_ms, more->gpu_share_ms);
    sum->stored_kb_ms = price_add(sum->stored_kb_ms, more->stored_kb_ms);
    sum->traffic_bytes = price_add(sum->traffic_bytes, more->traffic_bytes);
    row->is_unrecorded = true;
}

static void add_to(struct core *core, const char *pool, const struct core_upkeep *more)
{
    struct row *row = find_or_make(&core->upkeep, purse_day_of(core->unix_ms), pool);
    if (row != NULL) {
        add(row, more);
    }
}

/* Adds what has passed since it was last done, for those that were there. */
static void settle(struct core *core)
{
    const int64_t past_ms = core->now_ms - core->upkeep.settled_ms;
    if (past_ms <= 0) {
        return;
    }
    core->upkeep.settled_ms = core->now_ms;
    for (size_t i = 0; i < core->pools.length; i++) {
        const struct pool *pool = &core->pool[i];
        if (pool->worker_shares > 0) {
            const struct core_upkeep more = {
                .worker_share_ms = product(pool->worker_shares, (uint64_t)past_ms),
                .gpu_share_ms = product(pool->gpu_shares, (uint64_t)past_ms)};
            add_to(core, pool->name->text, &more);
        }
    }
}

/* ---- workers ---- */

/* The part of it in the pool at `index`: the first has what cannot be divided. */
static uint64_t share_of(const struct worker *worker, size_t index)
{
    const uint64_t whole = UPKEEP_SHARES / (worker->brokers > 0 ? worker->brokers : 1);
    const uint64_t each = whole / worker->pools_length;
    return index == 0 ? whole - each * (worker->pools_length - 1) : each;
}

void upkeep_join(struct core *core, const struct worker *worker)
{
    settle(core);
    for (size_t i = 0; i < worker->pools_length; i++) {
        worker->pools[i]->worker_shares += share_of(worker, i);
        worker->pools[i]->gpu_shares += share_of(worker, i) * worker->gpus;
    }
}

void upkeep_leave(struct core *core, const struct worker *worker)
{
    settle(core);
    for (size_t i = 0; i < worker->pools_length; i++) {
        worker->pools[i]->worker_shares -= share_of(worker, i);
        worker->pools[i]->gpu_shares -= share_of(worker, i) * worker->gpus;
    }
}

/* ---- records ---- */

static void write_key(const struct row *row, uint8_t ret_key[KEY_BYTES])
{
    const uint32_t day = htobe32((uint32_t)row->day);
    const uint64_t hash = htobe64(XXH3_64bits(row->pool, strlen(row->pool)));
    memcpy(ret_key, "upkeep", KEY_HEAD_BYTES); /* its end is the 0 */
    memcpy(ret_key + KEY_HEAD_BYTES, &day, sizeof(day));
    memcpy(ret_key + KEY_HEAD_BYTES + sizeof(day), &hash, sizeof(hash));
}

static void record(struct core *core, struct row *row)
{
    uint8_t key[KEY_BYTES];
    Record__UpkeepRecord message = RECORD__UPKEEP_RECORD__INIT;
    message.day = (uint32_t)row->day;
    message.pool = row->pool;
    message.worker_share_ms = row->sum.worker_share_ms;
    message.gpu_share_ms = row->sum.gpu_share_ms;
    message.stored_kb_ms = row->sum.stored_kb_ms;
    message.traffic_bytes = row->sum.traffic_bytes;
    write_key(row, key);
    core_put_record(core, STORE_META, key, sizeof(key), &message.base);
    row->is_unrecorded = false;
}

static void forget(struct core *core, struct row *row)
{
    uint8_t key[KEY_BYTES];
    write_key(row, key);
    core_delete(core, STORE_META, key, sizeof(key));
    drop(&core->upkeep, row);
}

/* Those of days that are too old go; what does not fit into this turn goes in a later one. */
static void write_rows(struct core *core)
{
    const int32_t oldest = purse_day_of(core->unix_ms) - core->upkeep.keep_days;
    struct list_link *link = core->upkeep.rows.head.next;
    while (link != &core->upkeep.rows.head) {
        struct row *row = CONTAINER_OF(link, struct row, link);
        link = link->next;
        if (row->day <= oldest && effects_reserve(core->effects, 1)) {
            forget(core, row);
        } else if (row->is_unrecorded) {
            record(core, row);
        }
    }
}

void upkeep_told(struct core *core, const struct event *event)
{
    struct upkeep *upkeep = &core->upkeep;
    const uint64_t traffic_bytes = event->as.upkeep.traffic_bytes;
    const int64_t past_ms = core->now_ms - upkeep->told_ms;
    settle(core);
    const struct core_upkeep more = {
        .stored_kb_ms =
            product(event->as.upkeep.stored_bytes / KILOBYTE, past_ms > 0 ? (uint64_t)past_ms : 0),
        .traffic_bytes =
            traffic_bytes > upkeep->traffic_bytes ? traffic_bytes - upkeep->traffic_bytes : 0};
    upkeep->traffic_bytes = traffic_bytes;
    upkeep->told_ms = core->now_ms;
    if (more.stored_kb_ms > 0 || more.traffic_bytes > 0) {
        add_to(core, "", &more);
    }
    write_rows(core);
}

int upkeep_restore(struct core *core, const void *value, size_t value_bytes)
{
    Record__UpkeepRecord *message;
    int r = record_read_upkeep(value, value_bytes, arena_protobuf_allocator(core->arena), &message);
    if (r < 0) {
        return r;
    }
    struct row *row = find_or_make(&core->upkeep, (int32_t)message->day, message->pool);
    if (row == NULL) {
        return -ENOMEM;
    }
    row->sum = (struct core_upkeep){.worker_share_ms = message->worker_share_ms,
                                    .gpu_share_ms = message->gpu_share_ms,
                                    .stored_kb_ms = message->stored_kb_ms,
                                    .traffic_bytes = message->traffic_bytes};
    return 0;
}

/* ---- making, showing ---- */

void upkeep_init(struct core *core)
{
    list_init(&core->upkeep.rows);
    core->upkeep.settled_ms = core->upkeep.told_ms = core->now_ms;
}

void upkeep_destroy(struct core *core)
{
    struct upkeep *upkeep = &core->upkeep;
    while (upkeep->rows.head.next != NULL && !list_is_empty(&upkeep->rows)) {
        drop(upkeep, CONTAINER_OF(list_first(&upkeep->rows), struct row, link));
    }
}

void upkeep_configure(struct core *core, const struct config *config)
{
    core->upkeep.keep_days = (int32_t)config->cost.keep_days;
}

void core_visit_upkeep(const struct core *core,
                       void (*visit)(void *context, const struct core_upkeep_view *view),
                       void *context)
{
    list_for_each (&core->upkeep.rows, link) {
        const struct row *row = CONTAINER_OF(link, struct row, link);
        const struct core_upkeep_view view = {.day = row->day, .pool = row->pool, .sum = &row->sum};
        visit(context, &view);
    }
}
