#include "broker/admin_upkeep.h"
#include <stdlib.h>
#include <string.h>
#include "broker/admin.h"
#include "broker/admin_cost.h"
#include "broker/broker.h"
#include "broker/core/core.h"
#include "broker/core/upkeep.h"
#include "common/array.h"
#include "common/config.h"
#include "common/price.h"

enum { HOUR_MS = 3600000, MONTH_HOURS = 730, KB_OF_GB = 1000000, GB = 1000000000, KB = 1000 };
enum { GROUPS_FIRST = 64 };

struct group {
    int32_t day;
    const char *pool; /* of the core: valid while nothing is stepped */
    struct core_upkeep sum;
};

struct question {
    int32_t from_day, to_day;
    bool by_day;
    bool is_out_of_memory;
    struct group *groups; /* owned */
    size_t length, capacity;
};

/* ---- adding up ---- */

/* By day each row is one of its own. NULL: none yet. */
static struct group *find(const struct question *question, const char *pool)
{
    for (size_t i = 0; !question->by_day && i < question->length; i++) {
        if (strcmp(question->groups[i].pool, pool) == 0) {
            return &question->groups[i];
        }
    }
    return NULL;
}

/* NULL: no memory. */
static struct group *append(struct question *question, const struct core_upkeep_view *view)
{
    if (array_reserve(&question->groups, &question->capacity, question->length + 1,
                      sizeof(struct group), GROUPS_FIRST) < 0) {
        return NULL;
    }
    struct group *group = &question->groups[question->length++];
    *group = (struct group){.day = view->day, .pool = view->pool};
    return group;
}

static void add(struct core_upkeep *sum, const struct core_upkeep *more)
{
    sum->worker_share_ms = price_add(sum->worker_share_ms, more->worker_share_ms);
    sum->gpu_share_ms = price_add(sum->gpu_share_ms, more->gpu_share_ms);
    sum->stored_kb_ms = price_add(sum->stored_kb_ms, more->stored_kb_ms);
    sum->traffic_bytes = price_add(sum->traffic_bytes, more->traffic_bytes);
}

static void add_row(void *context, const struct core_upkeep_view *view)
{
    struct question *question = context;
    if (view->day < question->from_day || view->day > question->to_day) {
        return;
    }
    struct group *group = find(question, view->pool);
    group = group != NULL ? group : append(question, view);
    question->is_out_of_memory |= group == NULL;
    if (group != NULL) {
        add(&group->sum, view->sum);
    }
}

/* ---- money ---- */

/* quantity × price / unit, rounded up, and no more than JSON can say. */
static uint64_t priced(uint64_t quantity, uint64_t nanousd, uint64_t unit)
{
    const unsigned __int128 product = (unsigned __int128)quantity * nanousd;
    const unsigned __int128 result = product / unit + (product % unit != 0);
    return result < INT64_MAX ? (uint64_t)result : INT64_MAX;
}

static uint64_t known(uint64_t nanousd, uint64_t otherwise)
{
    return nanousd == UINT64_MAX ? otherwise : nanousd;
}

/* Each part is rounded up. */
static uint64_t cost_of(const struct config_cost *config, const struct group *group)
{
    const struct core_upkeep *sum = &group->sum;
    const uint64_t share_hour = (uint64_t)UPKEEP_SHARES * HOUR_MS;
    uint64_t worker = config->worker_nanousd_per_hour;
    uint64_t gpu = config->gpu_nanousd_per_hour;
    for (size_t i = 0; i < config->pools_length; i++) {
        const struct config_cost_pool *pool = &config->pools[i];
        if (strcmp(pool->name, group->pool) == 0) {
            worker = known(pool->worker_nanousd_per_hour, worker);
            gpu = known(pool->gpu_nanousd_per_hour, gpu);
        }
    }
    const uint64_t workers = price_add(priced(sum->worker_share_ms, worker, share_hour),
                                       priced(sum->gpu_share_ms, gpu, share_hour));
    const uint64_t store_and_sockets =
        price_add(priced(sum->stored_kb_ms, config->storage_nanousd_per_gb_month,
                         (uint64_t)KB_OF_GB * MONTH_HOURS * HOUR_MS),
                  priced(sum->traffic_bytes, config->traffic_nanousd_per_gb, GB));
    return price_add(workers, store_and_sockets);
}

/* ---- answering ---- */

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)(value < INT64_MAX ? value : INT64_MAX));
}

/* Adds to `object`. */
static json_t *describe_sum(json_t *object, const struct core_upkeep *sum, uint64_t nanousd)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {{"worker_ms", sum->worker_share_ms / UPKEEP_SHARES},
                   {"gpu_ms", sum->gpu_share_ms / UPKEEP_SHARES},
                   {"storage_byte_hours", priced(sum->stored_kb_ms, KB, HOUR_MS)},
                   {"traffic_bytes", sum->traffic_bytes},
                   {"cost_nanousd", nanousd}};
    for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++) {
        (void)json_object_set_new(object, numbers[i].name, number(numbers[i].value));
    }
    return object;
}

static json_t *describe_group(const struct question *question, const struct group *group,
                              uint64_t nanousd)
{
    char day[ADMIN_DAY_BYTES];
    json_t *object = json_object();
    if (question->by_day) {
        (void)json_object_set_new(object, "day", json_string(admin_day_text(group->day, day)));
    }
    (void)json_object_set_new(object, "pool", json_string(group->pool));
    return describe_sum(object, &group->sum, nanousd);
}

json_t *admin_upkeep_describe(const struct broker *broker, int32_t from_day, int32_t to_day,
                              bool by_day)
{
    struct question question = {.from_day = from_day, .to_day = to_day, .by_day = by_day};
    struct core_upkeep total = {0};
    uint64_t total_nanousd = 0;
    json_t *rows = json_array();
    core_visit_upkeep(broker->core, add_row, &question);
    for (size_t i = 0; i < question.length; i++) {
        const struct group *group = &question.groups[i];
        const uint64_t nanousd = cost_of(&broker->config->cost, group);
        add(&total, &group->sum);
        total_nanousd = price_add(total_nanousd, nanousd);
        (void)json_array_append_new(rows, describe_group(&question, group, nanousd));
    }
    free(question.groups);
    if (question.is_out_of_memory) {
        json_decref(rows);
        return NULL;
    }
    return json_pack("{s:o, s:o}", "rows", rows, "total",
                     describe_sum(json_object(), &total, total_nanousd));
}
