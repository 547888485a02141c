/* The core's own data structures and the record codec. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "broker/core/concluded.h"
#include "broker/core/drain_rate.h"
#include "broker/core/job.h"
#include "broker/core/lane.h"
#include "broker/core/loads.h"
#include "broker/core/names.h"
#include "broker/core/record.h"
#include "broker/core/table.h"

static uint64_t seed_state = 42;

static uint64_t next_random(void)
{
    seed_state ^= seed_state << 13;
    seed_state ^= seed_state >> 7;
    seed_state ^= seed_state << 17;
    return seed_state;
}

static struct id id_of(uint64_t number)
{
    struct id id = {{0}};
    memcpy(id.bytes + 8, &number, sizeof(number));
    id.bytes[0] = 1;
    return id;
}

struct element {
    struct table_link link;
    uint64_t number;
};

static uint64_t element_hash(const struct table_link *link, uint64_t seed)
{
    const struct element *element = CONTAINER_OF((struct table_link *)link, struct element, link);
    const struct id id = id_of(element->number);
    return id_hash(&id, seed);
}

static struct element *find_element(const struct table *table, uint64_t number)
{
    const struct id id = id_of(number);
    for (struct table_link *link = table_first(table, id_hash(&id, table->seed)); link != NULL;
         link = link->next) {
        struct element *element = CONTAINER_OF(link, struct element, link);
        if (element->number == number) {
            return element;
        }
    }
    return NULL;
}

Test(core_table, holds_what_was_inserted_and_not_removed_while_it_grows)
{
    enum { N = 300000 };
    struct table table;
    cr_assert_eq(table_init(&table, 7, element_hash), 0);
    struct element *elements = calloc(N, sizeof(*elements));
    for (uint64_t i = 0; i < N; i++) {
        elements[i].number = i;
        table_insert(&table, &elements[i].link);
        if (i % 3 == 2) {
            table_remove(&table, &elements[i - 1].link);
        }
    }
    cr_assert_gt(table.segments_length, 1);
    for (uint64_t i = 0; i < N; i++) {
        const bool removed = i % 3 == 1 && i + 1 < N;
        cr_assert_eq(find_element(&table, i) != NULL, !removed, "element %lu", i);
    }
    table_finish(&table);
    free(elements);
}

Test(core_table, holds_what_came_at_once_and_grows_on_from_there)
{
    enum { N = 400000, AT_ONCE = 199999 };
    struct table table;
    cr_assert_eq(table_init(&table, 7, element_hash), 0);
    struct element *elements = calloc(N, sizeof(*elements));
    for (uint64_t i = 0; i < N; i++) {
        elements[i].number = i;
    }
    for (uint64_t i = 0; i < AT_ONCE; i++) {
        table_insert_later(&table, &elements[i].link);
    }
    cr_assert_eq(table.length, 0);
    table_settle(&table);
    cr_assert_eq(table.length, AT_ONCE);
    cr_assert_eq(table.later_length, 0);
    table_insert_later(&table, &elements[AT_ONCE].link);
    table_settle(&table);
    for (uint64_t i = AT_ONCE + 1; i < N; i++) {
        table_insert(&table, &elements[i].link);
    }
    table_remove(&table, &elements[5].link);
    for (uint64_t i = 0; i < N; i++) {
        cr_assert_eq(find_element(&table, i) != NULL, i != 5, "element %lu", i);
    }
    table_finish(&table);
    free(elements);
}

Test(core_concluded, remembers_the_latest_and_forgets_the_oldest)
{
    enum { MAX = 10000, N = 50000 };
    struct concluded concluded;
    cr_assert_eq(concluded_init(&concluded, MAX, 3), 0);
    for (uint64_t i = 0; i < N; i++) {
        const struct id id = id_of(i);
        if (concluded_is_full(&concluded)) {
            concluded_forget_oldest(&concluded);
        }
        struct concluded_entry *entry =
            concluded_add(&concluded, &id, INT64_C(1700000000000) + (int64_t)i * 100);
        cr_assert_not_null(entry);
        concluded_keep_disk_result(&concluded, entry, 10);
        if (i % 997 == 0) {
            const uint64_t any = next_random() % (i + 1);
            const struct id any_id = id_of(any);
            const struct concluded_entry *found = concluded_find(&concluded, &any_id);
            cr_assert_eq(found != NULL, i - any < MAX, "%lu of %lu", any, i);
            if (found != NULL) {
                cr_assert_eq(concluded_unix_ms(&concluded, found),
                             INT64_C(1700000000000) + (int64_t)any * 100);
            }
        }
    }
    cr_assert_eq(concluded_length(&concluded), MAX);
    cr_assert_eq(concluded.results_disk_bytes, MAX * 10);
    cr_assert_eq(concluded.horizon_unix_ms, INT64_C(1700000000000) + (N - MAX - 1) * 100);
    concluded_finish(&concluded);
}

Test(core_concluded, withdrawn_id_is_unknown_and_may_be_concluded_again)
{
    enum { MAX = 500, N = 20000, IDS = 300 };
    struct concluded concluded;
    int64_t at_ms[IDS]; /* when it was concluded; 0: it is not */
    memset(at_ms, 0, sizeof(at_ms));
    cr_assert_eq(concluded_init(&concluded, MAX, 3), 0);
    for (int64_t now_ms = 1; now_ms <= N; now_ms++) {
        const uint64_t which = next_random() % IDS;
        const struct id id = id_of(which);
        struct concluded_entry *entry = concluded_find(&concluded, &id);
        cr_assert_eq(entry != NULL, at_ms[which] != 0);
        if (entry != NULL) {
            cr_assert_eq(concluded_unix_ms(&concluded, entry), at_ms[which]);
            concluded_withdraw(&concluded, entry);
            cr_assert_null(concluded_find(&concluded, &id));
            at_ms[which] = 0;
            continue;
        }
        if (concluded_is_full(&concluded)) {
            const int64_t gone_ms = concluded_unix_ms(&concluded, concluded_oldest(&concluded));
            concluded_forget_oldest(&concluded);
            for (size_t i = 0; i < IDS; i++) {
                at_ms[i] = at_ms[i] == gone_ms ? 0 : at_ms[i];
            }
        }
        concluded_keep_disk_result(&concluded, concluded_add(&concluded, &id, now_ms), 10);
        at_ms[which] = now_ms;
    }
    size_t kept = 0;
    for (size_t i = 0; i < IDS; i++) {
        kept += at_ms[i] != 0;
    }
    cr_assert_eq(concluded.results_on_disk, kept);
    cr_assert_eq(concluded.results_disk_bytes, kept * 10);
    concluded_finish(&concluded);
}

Test(core_loads, answer_is_taken_once_and_only_by_its_token)
{
    struct loads loads;
    struct load load;
    cr_assert_eq(loads_init(&loads), 0);
    const struct id id = id_of(5);
    const uint64_t token = loads_open(&loads, LOAD_RESULT, &id, 9);
    cr_assert(!loads_close(&loads, token + (1 << 16), &load));
    cr_assert(loads_close(&loads, token, &load));
    cr_assert_eq(load.peer, 9);
    cr_assert(!loads_close(&loads, token, &load));
    for (int i = 0; i < LOADS_MAX; i++) {
        cr_assert_neq(loads_open(&loads, LOAD_PAYLOAD, &id, 0), 0);
    }
    cr_assert_eq(loads_open(&loads, LOAD_PAYLOAD, &id, 0), 0);
    loads_finish(&loads);
}

Test(core_names, same_text_is_the_same_name)
{
    struct names names;
    struct name *first, *again;
    cr_assert_eq(names_init(&names, 1), 0);
    cr_assert_eq(names_add(&names, "auto", &first), 0);
    cr_assert_eq(names_add(&names, "auto", &again), 0);
    cr_assert_eq(first, again);
    cr_assert_null(names_find(&names, "other"));
    names_finish(&names);
}

Test(core_drain_rate, expected_wait_follows_what_a_backlog_was_served)
{
    struct drain_rate rate;
    drain_rate_init(&rate, 0);
    cr_assert_eq(drain_rate_wait_ms(&rate, 100, 0), -1);
    for (int64_t now_ms = 10; now_ms <= 10000; now_ms += 10) { /* 100 a second */
        rate.dispatches++;
        drain_rate_update(&rate, true, now_ms);
    }
    const int64_t wait_ms = drain_rate_wait_ms(&rate, 500, 10000);
    cr_assert(wait_ms > 4500 && wait_ms < 5500, "%ld", wait_ms);
    cr_assert_eq(drain_rate_wait_ms(&rate, 500, 20000), -1, "old measurements do not count");
}

Test(core_drain_rate, queue_that_runs_empty_says_nothing_about_waiting)
{
    struct drain_rate rate;
    drain_rate_init(&rate, 0);
    for (int64_t now_ms = 1000; now_ms <= 10000; now_ms += 1000) {
        rate.dispatches++;
        drain_rate_update(&rate, false, now_ms);
    }
    cr_assert_eq(drain_rate_wait_ms(&rate, 100, 10000), -1);
}

Test(core_shares, add_up_and_keep_every_minimum)
{
    for (int round = 0; round < 1000; round++) {
        struct config_tier tiers[CONFIG_TIERS_MAX] = {0};
        uint32_t shares[CONFIG_TIERS_MAX];
        const size_t length = 1 + next_random() % CONFIG_TIERS_MAX;
        for (size_t i = 0; i < length; i++) {
            tiers[i].weight = (uint32_t)(1 + next_random() % 1000);
            tiers[i].share_min_percent = (uint32_t)(next_random() % (100 / length + 1));
        }
        lane_compute_shares(tiers, length, shares);
        uint64_t sum = 0;
        for (size_t i = 0; i < length; i++) {
            sum += shares[i];
            cr_assert_gt(shares[i], 0);
            cr_assert_geq(shares[i], (uint64_t)SHARE_ALL * tiers[i].share_min_percent / 100);
        }
        cr_assert_leq(sum, SHARE_ALL + length, "seed 42, round %d", round);
    }
}

Test(core_job, record_in_memory_is_small)
{
    cr_assert_leq(sizeof(struct job), CORE_JOB_BYTES_MAX);
}

Test(core_job, what_is_concluded_becomes_nothing_else_but_a_dead_letter_may_live_again)
{
    for (int to = PLACE_NEW; to <= PLACE_GONE; to++) {
        cr_assert(!job_may_become(PLACE_GONE, to));
        cr_assert_eq(job_may_become(PLACE_DEAD, to), to == PLACE_GONE || to == PLACE_BACKING_OFF);
        cr_assert(!job_may_become(to, PLACE_NEW));
    }
}

static Record__JobRecord *sample_job(void)
{
    static Record__JobRecord job;
    static uint8_t id[16] = {1, 2, 3}, hash[16] = {4};
    job = (Record__JobRecord)RECORD__JOB_RECORD__INIT;
    job.job_id = (ProtobufCBinaryData){16, id};
    job.sequence = 77;
    job.tenant = "a";
    job.tier = "standard";
    job.route = "auto";
    job.pool = "default";
    job.priority = 9;
    job.idempotency_hash = (ProtobufCBinaryData){16, hash};
    job.deadline_unix_ms = 123456789;
    job.payload_bytes = 1000;
    return &job;
}

Test(core_record, job_reads_back_as_it_was_written)
{
    const Record__JobRecord *job = sample_job();
    uint8_t bytes[512];
    cr_assert_leq(record_bytes(&job->base), sizeof(bytes));
    record_write(&job->base, bytes);
    Record__JobRecord *read;
    cr_assert_eq(record_read_job(bytes, record_bytes(&job->base), NULL, &read), 0);
    cr_assert_eq(read->sequence, 77);
    cr_assert_str_eq(read->tier, "standard");
    cr_assert_eq(read->idempotency_hash.len, 16);
    cr_assert_eq(read->deadline_unix_ms, 123456789);
    record__job_record__free_unpacked(read, NULL);
}

static ProtobufCAllocator *bounded_arena(struct arena **arena)
{
    cr_assert_eq(arena_create(1 << 20, arena), 0);
    return arena_protobuf_allocator(*arena);
}

Test(core_record, damaged_bytes_are_refused_or_read_and_never_more)
{
    struct arena *arena;
    ProtobufCAllocator *allocator = bounded_arena(&arena);
    const Record__JobRecord *job = sample_job();
    uint8_t whole[512], damaged[512];
    const size_t length = record_bytes(&job->base);
    record_write(&job->base, whole);
    for (int round = 0; round < 20000; round++) {
        memcpy(damaged, whole, length);
        const size_t cut = next_random() % (length + 1);
        for (uint64_t i = next_random() % 4; i > 0 && cut > 0; i--) {
            damaged[next_random() % cut] ^= (uint8_t)(1u << next_random() % 8);
        }
        Record__JobRecord *read = NULL;
        if (record_read_job(damaged, cut, allocator, &read) == 0) {
            cr_assert_leq(read->priority, 9);
            cr_assert_eq(read->job_id.len, 16);
        }
        Record__ResultRecord *result;
        size_t offset;
        if (record_read_result(damaged, cut, allocator, &result, &offset) == 0) {
            cr_assert_eq(offset + result->payload_bytes, cut);
        }
        Record__ConcludedRecord *concluded;
        Record__LeaseRecord *lease;
        Record__PauseRecord *pause;
        Record__AttemptRecord *attempt;
        (void)!record_read_concluded(damaged, cut, allocator, &concluded);
        (void)!record_read_lease(damaged, cut, allocator, &lease);
        (void)!record_read_pause(damaged, cut, allocator, &pause);
        (void)!record_read_attempt(damaged, cut, allocator, &attempt);
        arena_reset(arena);
    }
    arena_destroy(&arena);
}

Test(core_record, later_version_is_refused)
{
    const Record__JobRecord *job = sample_job();
    uint8_t bytes[512];
    record_write(&job->base, bytes);
    bytes[0] = RECORD_VERSION + 1;
    Record__JobRecord *read;
    cr_assert_eq(record_read_job(bytes, record_bytes(&job->base), NULL, &read), -EBADMSG);
}

Test(core_record, result_names_where_its_payload_begins)
{
    struct arena *arena;
    ProtobufCAllocator *allocator = bounded_arena(&arena);
    Record__ResultRecord record = RECORD__RESULT_RECORD__INIT, *read;
    uint8_t bytes[64], packed[] = {1, 2, 3};
    record.result = (ProtobufCBinaryData){3, packed};
    record.payload_bytes = 5;
    const size_t head = record_result_head_bytes(&record);
    record_write_result_head(&record, bytes);
    size_t offset;
    cr_assert_eq(record_read_result(bytes, head + 5, allocator, &read, &offset), 0);
    cr_assert_eq(offset, head);
    cr_assert_eq(record_read_result(bytes, head + 4, allocator, &read, &offset), -EBADMSG);
    arena_destroy(&arena);
}

Test(core_record, time_keys_sort_by_time)
{
    uint8_t early[RECORD_TIME_KEY_BYTES], late[RECORD_TIME_KEY_BYTES];
    const struct id id = id_of(1);
    record_write_time_key(255, &id, early);
    record_write_time_key(256, &id, late);
    cr_assert_lt(memcmp(early, late, sizeof(early)), 0);
    int64_t unix_ms;
    struct id read;
    cr_assert_eq(record_read_time_key(late, sizeof(late), &unix_ms, &read), 0);
    cr_assert_eq(unix_ms, 256);
    cr_assert(id_equal(&read, &id));
    cr_assert_eq(record_read_time_key(late, sizeof(late) - 1, &unix_ms, &read), -EBADMSG);
}
