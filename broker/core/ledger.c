#include "broker/core/ledger.h"
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "broker/core/purse.h"
#include "broker/core/record.h"
#include "broker/core/state.h"
#include "common/config.h"

enum { KEY_HEAD_BYTES = 7, KEY_BYTES = KEY_HEAD_BYTES + 4 + 8, NOBODY = UINT16_MAX };
enum { OF_TENANT, OF_TIER, OF_MODEL, OF_PROVIDER, NAMES };

struct row_key {
    int32_t day;
    uint16_t of[NAMES]; /* numbers of names; NOBODY none */
};

struct row {
    struct table_link link;
    struct list_link by_day;
    struct list_link unrecorded; /* while next is not NULL */
    struct row_key key;
    struct core_cost sum;
};

/* ---- finding rows ---- */

static uint64_t hash_key(const struct row_key *key, uint64_t seed)
{
    return XXH3_64bits_withSeed(key, sizeof(*key), seed);
}

uint64_t ledger_hash(const struct table_link *link, uint64_t seed)
{
    return hash_key(&CONTAINER_OF((struct table_link *)link, struct row, link)->key, seed);
}

static struct row *find(const struct ledger *ledger, const struct row_key *key)
{
    struct table_link *link = table_first(&ledger->rows, hash_key(key, ledger->rows.seed));
    for (; link != NULL; link = link->next) {
        struct row *row = CONTAINER_OF(link, struct row, link);
        if (memcmp(&row->key, key, sizeof(*key)) == 0) {
            return row;
        }
    }
    return NULL;
}

static struct row *insert(struct ledger *ledger, struct row *row, const struct row_key *key)
{
    if (row != NULL) {
        row->key = *key;
        table_insert(&ledger->rows, &row->link);
        list_append(&ledger->by_day, &row->by_day);
    }
    return row;
}

/* NULL: no memory. */
static struct row *make(struct ledger *ledger, const struct row_key *key)
{
    return insert(ledger, calloc(1, sizeof(struct row)), key);
}

static struct row_key nobody_of(int32_t day)
{
    return (struct row_key){.day = day, .of = {NOBODY, NOBODY, NOBODY, NOBODY}};
}

/* Without memory for a row that names nobody the latest one takes it: the total stays exact. */
static struct row *find_or_make(struct ledger *ledger, const struct row_key *key)
{
    const struct row_key nobody = nobody_of(key->day);
    struct row *row = find(ledger, key);
    if (row == NULL && ledger->rows.length < ledger->rows_max) {
        row = make(ledger, key);
    }
    row = row != NULL ? row : find(ledger, &nobody);
    row = row != NULL ? row : make(ledger, &nobody);
    if (row == NULL && list_is_empty(&ledger->by_day)) {
        row = insert(ledger, TAKE(ledger->spare), &nobody);
    }
    if (row == NULL && !list_is_empty(&ledger->by_day)) {
        row = CONTAINER_OF(ledger->by_day.head.previous, struct row, by_day);
    }
    return row;
}

static void drop(struct ledger *ledger, struct row *row)
{
    table_remove(&ledger->rows, &row->link);
    list_remove(&ledger->by_day, &row->by_day);
    if (row->unrecorded.next != NULL) {
        list_remove(&ledger->unrecorded, &row->unrecorded);
    }
    free(row);
}

/* ---- names ---- */

static uint16_t number_of(struct names *names, const char *text)
{
    if (text[0] == '\0') {
        return NOBODY;
    }
    struct name *name = names_find(names, text);
    if (name == NULL && (names->length >= LEDGER_NAMES_MAX || names_add(names, text, &name) < 0)) {
        return NOBODY;
    }
    return name->index;
}

static struct row_key key_of(struct ledger *ledger, int32_t day, const struct ledger_key *key)
{
    const char *const texts[NAMES] = {key->tenant, key->tier, key->model, key->provider};
    struct row_key numbers = {.day = day};
    for (size_t i = 0; i < NAMES; i++) {
        numbers.of[i] = number_of(&ledger->names[i], texts[i]);
    }
    return numbers;
}

static const char *text_of(const struct ledger *ledger, const struct row *row, size_t which)
{
    const struct names *names = &ledger->names[which];
    const uint16_t number = row->key.of[which];
    return number < names->length ? names->items[number]->text : "";
}

/* ---- adding ---- */

/* Sums of tokens and nano-dollars stay below 2^63 for longer than any broker runs; a worker that
 * says more saturates them. */
static void add(uint64_t *sum, uint64_t more)
{
    *sum = price_add(*sum, more);
}

static void take(uint64_t *sum, uint64_t less)
{
    *sum -= less < *sum ? less : *sum;
}

#define FIELD(name) offsetof(struct core_cost, name)
static const size_t numbers[] = {FIELD(calls),
                                 FIELD(estimated_calls),
                                 FIELD(tokens[PRICE_INPUT]),
                                 FIELD(tokens[PRICE_CACHED_INPUT]),
                                 FIELD(tokens[PRICE_CACHE_WRITE]),
                                 FIELD(tokens[PRICE_CACHE_WRITE_LONG]),
                                 FIELD(tokens[PRICE_OUTPUT]),
                                 FIELD(reasoning_tokens),
                                 FIELD(estimated_tokens),
                                 FIELD(cost_nanousd),
                                 FIELD(estimated_nanousd),
                                 FIELD(late_nanousd),
                                 FIELD(hits),
                                 FIELD(followers),
                                 FIELD(saved_cache_nanousd),
                                 FIELD(saved_cache_ms),
                                 FIELD(saved_followers_nanousd),
                                 FIELD(saved_followers_ms),
                                 FIELD(saved_prompt_cache_nanousd),
                                 FIELD(saved_batching_nanousd),
                                 FIELD(saved_optimising_nanousd)};
_Static_assert(sizeof(struct core_cost) ==
                   sizeof(uint64_t) * ARRAY_LENGTH(numbers) + sizeof(int64_t),
               "all of them, and what routing saved, which has a sign");

/* What add and take do to each number. */
static void change(struct core_cost *sum, const struct core_cost *cost,
                   void (*each)(uint64_t *sum, uint64_t by))
{
    for (size_t i = 0; i < ARRAY_LENGTH(numbers); i++) {
        uint64_t by;
        memcpy(&by, (const char *)cost + numbers[i], sizeof(by));
        each((uint64_t *)(void *)((char *)sum + numbers[i]), by);
    }
}

static void add_signed(int64_t *sum, int64_t more)
{
    if (__builtin_add_overflow(*sum, more, sum)) {
        *sum = more > 0 ? INT64_MAX : INT64_MIN;
    }
}

void core_cost_add(struct core_cost *sum, const struct core_cost *more)
{
    change(sum, more, add);
    add_signed(&sum->saved_routing_nanousd, more->saved_routing_nanousd);
}

static void changed(struct ledger *ledger, struct row *row)
{
    if (row->unrecorded.next == NULL) {
        list_append(&ledger->unrecorded, &row->unrecorded);
    }
}

void ledger_add(struct core *core, int32_t day, const struct ledger_key *key,
                const struct core_cost *cost)
{
    struct ledger *ledger = &core->ledger;
    const struct row_key row_key = key_of(ledger, day, key);
    struct row *row = find_or_make(ledger, &row_key);
    core_cost_add(&ledger->total, cost);
    if (row != NULL) { /* else there was no memory since the last day was forgotten */
        core_cost_add(&row->sum, cost);
        changed(ledger, row);
    }
}

void ledger_take_back(struct core *core, int32_t day, const struct ledger_key *key,
                      const struct core_cost *cost)
{
    struct ledger *ledger = &core->ledger;
    const struct row_key row_key = key_of(ledger, day, key);
    const struct row_key nobody = nobody_of(day);
    struct row *row = find(ledger, &row_key);
    row = row != NULL ? row : find(ledger, &nobody);
    change(&ledger->total, cost, take);
    if (row != NULL) {
        change(&row->sum, cost, take);
        changed(ledger, row);
    }
}

/* ---- records ---- */

/* By the names themselves: numbers are others after a restart. */
static void write_key(const struct ledger *ledger, const struct row *row,
                      uint8_t ret_key[KEY_BYTES])
{
    uint64_t hash = 0;
    for (size_t i = 0; i < NAMES; i++) {
        const char *text = text_of(ledger, row, i);
        hash = XXH3_64bits_withSeed(text, strlen(text), hash + 1);
    }
    const uint32_t day = htobe32((uint32_t)row->key.day);
    hash = htobe64(hash);
    memcpy(ret_key, "ledger", KEY_HEAD_BYTES); /* its end is the 0 */
    memcpy(ret_key + KEY_HEAD_BYTES, &day, sizeof(day));
    memcpy(ret_key + KEY_HEAD_BYTES + sizeof(day), &hash, sizeof(hash));
}

static void fill_record(const struct ledger *ledger, const struct row *row,
                        Record__LedgerRecord *record)
{
    const struct core_cost *sum = &row->sum;
    record->day = (uint32_t)row->key.day;
    record->tenant = (char *)text_of(ledger, row, OF_TENANT);
    record->tier = (char *)text_of(ledger, row, OF_TIER);
    record->model = (char *)text_of(ledger, row, OF_MODEL);
    record->provider = (char *)text_of(ledger, row, OF_PROVIDER);
    record->calls = sum->calls;
    record->estimated_calls = sum->estimated_calls;
    record->input_tokens = sum->tokens[PRICE_INPUT];
    record->cached_input_tokens = sum->tokens[PRICE_CACHED_INPUT];
    record->cache_write_tokens = sum->tokens[PRICE_CACHE_WRITE];
    record->cache_write_long_tokens = sum->tokens[PRICE_CACHE_WRITE_LONG];
    record->output_tokens = sum->tokens[PRICE_OUTPUT];
    record->reasoning_tokens = sum->reasoning_tokens;
    record->estimated_tokens = sum->estimated_tokens;
    record->cost_nanousd = sum->cost_nanousd;
    record->estimated_nanousd = sum->estimated_nanousd;
    record->late_nanousd = sum->late_nanousd;
    record->hits = sum->hits;
    record->followers = sum->followers;
    record->saved_cache_nanousd = sum->saved_cache_nanousd;
    record->saved_cache_ms = sum->saved_cache_ms;
    record->saved_followers_nanousd = sum->saved_followers_nanousd;
    record->saved_followers_ms = sum->saved_followers_ms;
    record->saved_prompt_cache_nanousd = sum->saved_prompt_cache_nanousd;
    record->saved_batching_nanousd = sum->saved_batching_nanousd;
    record->saved_optimising_nanousd = sum->saved_optimising_nanousd;
    record->saved_routing_nanousd = sum->saved_routing_nanousd;
}

static struct core_cost sum_of(const Record__LedgerRecord *record)
{
    return (struct core_cost){
        .calls = record->calls,
        .estimated_calls = record->estimated_calls,
        .tokens = {[PRICE_INPUT] = record->input_tokens,
                   [PRICE_CACHED_INPUT] = record->cached_input_tokens,
                   [PRICE_CACHE_WRITE] = record->cache_write_tokens,
                   [PRICE_CACHE_WRITE_LONG] = record->cache_write_long_tokens,
                   [PRICE_OUTPUT] = record->output_tokens},
        .reasoning_tokens = record->reasoning_tokens,
        .estimated_tokens = record->estimated_tokens,
        .cost_nanousd = record->cost_nanousd,
        .estimated_nanousd = record->estimated_nanousd,
        .late_nanousd = record->late_nanousd,
        .hits = record->hits,
        .followers = record->followers,
        .saved_cache_nanousd = record->saved_cache_nanousd,
        .saved_cache_ms = record->saved_cache_ms,
        .saved_followers_nanousd = record->saved_followers_nanousd,
        .saved_followers_ms = record->saved_followers_ms,
        .saved_prompt_cache_nanousd = record->saved_prompt_cache_nanousd,
        .saved_batching_nanousd = record->saved_batching_nanousd,
        .saved_optimising_nanousd = record->saved_optimising_nanousd,
        .saved_routing_nanousd = record->saved_routing_nanousd,
    };
}

/*
 * Whatever the bound is by now. A row under fewer names than its record has would be written beside
 * that record, and what is added under the right names later would be written over it.
 */
static int restore_names(struct ledger *ledger, const struct ledger_key *key)
{
    const char *const texts[NAMES] = {key->tenant, key->tier, key->model, key->provider};
    int r = 0;
    for (size_t i = 0; r == 0 && i < NAMES; i++) {
        struct name *name;
        r = texts[i][0] == '\0' ? 0 : names_add(&ledger->names[i], texts[i], &name);
    }
    return r;
}

int ledger_restore(struct core *core, const void *value, size_t value_bytes)
{
    Record__LedgerRecord *record;
    int r = record_read_ledger(value, value_bytes, arena_protobuf_allocator(core->arena), &record);
    if (r < 0) {
        return r;
    }
    const struct ledger_key key = {.tenant = record->tenant,
                                   .tier = record->tier,
                                   .model = record->model,
                                   .provider = record->provider};
    struct ledger *ledger = &core->ledger;
    r = restore_names(ledger, &key);
    if (r < 0) {
        return r;
    }
    const struct row_key row_key = key_of(ledger, (int32_t)record->day, &key);
    struct row *row = find(ledger, &row_key);
    row = row != NULL ? row : make(ledger, &row_key); /* whatever the bound is by now */
    if (row == NULL) {
        return -ENOMEM;
    }
    row->sum = sum_of(record);
    return 0;
}

/* ---- time ---- */

static void record_row(struct core *core, struct row *row)
{
    Record__LedgerRecord record = RECORD__LEDGER_RECORD__INIT;
    uint8_t key[KEY_BYTES];
    struct ledger *ledger = &core->ledger;
    list_remove(&ledger->unrecorded, &row->unrecorded);
    write_key(ledger, row, key);
    fill_record(ledger, row, &record);
    core_put_record(core, STORE_META, key, sizeof(key), &record.base);
}

/* Rows of too old days go; they may lie between others, since a clock may have been set back. */
static void sweep(struct core *core, int32_t today)
{
    struct ledger *ledger = &core->ledger;
    const int32_t oldest = today - ledger->keep_days;
    struct list_link *link = ledger->by_day.head.next;
    bool is_done = true;
    while (link != &ledger->by_day.head) {
        struct row *row = CONTAINER_OF(link, struct row, by_day);
        link = link->next;
        if (row->key.day > oldest) {
            continue;
        }
        if (!effects_reserve(core->effects, 1)) {
            is_done = false;
            break;
        }
        uint8_t key[KEY_BYTES];
        write_key(ledger, row, key);
        core_delete(core, STORE_META, key, sizeof(key));
        drop(ledger, row);
    }
    ledger->swept_day = is_done ? today : ledger->swept_day;
}

void ledger_tick(struct core *core)
{
    struct ledger *ledger = &core->ledger;
    const int32_t today = purse_day_of(core->unix_ms);
    while (!list_is_empty(&ledger->unrecorded)) { /* no more than results came in this turn */
        record_row(core, CONTAINER_OF(list_first(&ledger->unrecorded), struct row, unrecorded));
    }
    if (today > ledger->swept_day) {
        sweep(core, today);
    }
}

/* ---- making, showing ---- */

int ledger_init(struct core *core, uint64_t seed)
{
    struct ledger *ledger = &core->ledger;
    list_init(&ledger->by_day);
    list_init(&ledger->unrecorded);
    ledger->spare = calloc(1, sizeof(struct row));
    int r = ledger->spare == NULL ? -ENOMEM : table_init(&ledger->rows, seed, ledger_hash);
    for (size_t i = 0; r == 0 && i < NAMES; i++) {
        r = names_init(&ledger->names[i], seed + i + 1);
    }
    return r;
}

void ledger_destroy(struct core *core)
{
    struct ledger *ledger = &core->ledger;
    while (ledger->by_day.head.next != NULL && !list_is_empty(&ledger->by_day)) {
        drop(ledger, CONTAINER_OF(list_first(&ledger->by_day), struct row, by_day));
    }
    free(ledger->spare);
    table_finish(&ledger->rows);
    for (size_t i = 0; i < NAMES; i++) {
        names_finish(&ledger->names[i]);
    }
}

void ledger_configure(struct core *core, const struct config *config)
{
    core->ledger.rows_max = config->cost.rows_max;
    core->ledger.keep_days = (int32_t)config->cost.keep_days;
    core->ledger.swept_day = 0;
}

void core_visit_costs(const struct core *core,
                      void (*visit)(void *context, const struct core_cost_view *view),
                      void *context)
{
    const struct ledger *ledger = &core->ledger;
    list_for_each (&ledger->by_day, link) {
        const struct row *row = CONTAINER_OF(link, struct row, by_day);
        const struct core_cost_view view = {
            .day = row->key.day,
            .tenant = text_of(ledger, row, OF_TENANT),
            .tier = text_of(ledger, row, OF_TIER),
            .model = text_of(ledger, row, OF_MODEL),
            .provider = text_of(ledger, row, OF_PROVIDER),
            .sum = &row->sum,
        };
        visit(context, &view);
    }
}

const struct core_cost *core_cost_total(const struct core *core)
{
    return &core->ledger.total;
}
