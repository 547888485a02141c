#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "common/attributes.h"
#include "tests/unit/worker/dice.h"
#include "tests/unit/worker/scarce_memory.h"
#include "worker/cache/lexical_index.h"

enum {
    ENTRIES = 4000,
    SCOPES = 40,
    TEXT_WORDS_MAX = 14,
    NOTE_BYTES_MAX = 40,
    HITS = 8,
    ROUNDS = 24000,
    LOOKED_UP_EVERY = 8,
    SEEDS = 2,
};

static const double COSINE_MIN = 0.3;

/* Entry i of the model has key i. */
struct model_entry {
    bool is_there;
    uint32_t scope;
    size_t note_bytes;
    uint8_t note[NOTE_BYTES_MAX];
    struct sparse_vector vector;
};

static struct model_entry *model; /* ENTRIES */

static void id_of(uint32_t number, uint8_t ret_id[LEXICAL_KEY_BYTES])
{
    struct dice dice = {.state = number};
    const uint64_t halves[2] = {dice_next(&dice), dice_next(&dice)};
    memcpy(ret_id, halves, sizeof(halves));
}

static void vector_add(struct sparse_vector *vector, uint32_t bucket, uint32_t weight)
{
    for (size_t i = 0; i < vector->length; i++) {
        if (sparse_bucket(vector->items[i]) == bucket) {
            return;
        }
    }
    vector->items[vector->length++] = sparse_item(bucket, weight);
}

/* Few words are in most texts and weigh little; each word has some features of its own. */
static void some_vector(struct dice *dice, struct sparse_vector *ret_vector)
{
    const size_t words = 2 + dice_below(dice, TEXT_WORDS_MAX - 1);
    ret_vector->length = 0;
    for (size_t i = 0; i < words; i++) {
        const uint32_t rank = dice_below(dice, 1 + dice_below(dice, 1 + dice_below(dice, 3000)));
        const uint32_t weight = rank < 10 ? 20 + rank : rank < 200 ? 60 + rank / 2 : 200;
        for (uint32_t feature = 0; feature < 6; feature++) {
            vector_add(ret_vector, (rank * 6 + feature) * 2654435u % SPARSE_BUCKETS,
                       feature == 0 ? weight : 1 + weight / 4);
        }
    }
    sparse_vector_set_norm(ret_vector);
}

/* Some words the same, some others: what a near hit looks like. */
static void varied_vector(struct dice *dice, const struct sparse_vector *vector,
                          struct sparse_vector *ret_vector)
{
    struct sparse_vector other;
    some_vector(dice, &other);
    ret_vector->length = 0;
    for (size_t i = 0; i < vector->length; i++) {
        if (dice_below(dice, 10) < 7) {
            ret_vector->items[ret_vector->length++] = vector->items[i];
        }
    }
    for (size_t i = 0; i < other.length && i < 12; i++) {
        vector_add(ret_vector, sparse_bucket(other.items[i]), sparse_weight(other.items[i]));
    }
    sparse_vector_set_norm(ret_vector);
}

static uint32_t some_scope(struct dice *dice)
{
    return dice_below(dice, 3) > 0 ? 0 : dice_below(dice, SCOPES); /* one large, the others small */
}

static int index_add(struct lexical_index *index, uint32_t number, const struct model_entry *entry)
{
    uint8_t scope[LEXICAL_SCOPE_BYTES];
    uint8_t key[LEXICAL_KEY_BYTES];
    id_of(entry->scope + ENTRIES, scope);
    id_of(number, key);
    return lexical_index_add(index, scope, key, &entry->vector, entry->note, entry->note_bytes);
}

static bool index_remove(struct lexical_index *index, uint32_t number)
{
    uint8_t key[LEXICAL_KEY_BYTES];
    id_of(number, key);
    return lexical_index_remove(index, key);
}

static void some_entry(struct dice *dice, struct model_entry *ret_entry)
{
    ret_entry->is_there = true;
    ret_entry->scope = some_scope(dice);
    ret_entry->note_bytes = dice_below(dice, NOTE_BYTES_MAX + 1);
    for (size_t i = 0; i < ret_entry->note_bytes; i++) {
        ret_entry->note[i] = (uint8_t)dice_next(dice);
    }
    some_vector(dice, &ret_entry->vector);
}

static int by_falling(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x < y) - (x > y);
}

/* The best cosines of the scope by a scan of the model, best first. */
static size_t scan(uint32_t scope, const struct sparse_vector *vector, double ret_cosines[ENTRIES])
{
    size_t length = 0;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        if (model[i].is_there && model[i].scope == scope) {
            const double cosine = sparse_vector_cosine(vector, &model[i].vector);
            if (cosine >= COSINE_MIN) {
                ret_cosines[length++] = cosine;
            }
        }
    }
    qsort(ret_cosines, length, sizeof(double), by_falling);
    return length < HITS ? length : HITS;
}

static void check_hit(const struct lexical_hit *hit, uint32_t scope,
                      const struct sparse_vector *vector)
{
    for (uint32_t i = 0; i < ENTRIES; i++) {
        uint8_t key[LEXICAL_KEY_BYTES];
        id_of(i, key);
        if (memcmp(key, hit->key, sizeof(key)) == 0) {
            cr_assert(model[i].is_there);
            cr_assert_eq(model[i].scope, scope);
            cr_assert_float_eq(hit->cosine, sparse_vector_cosine(vector, &model[i].vector), 1e-9);
            cr_assert_eq(hit->note_bytes, model[i].note_bytes);
            cr_assert_eq(memcmp(hit->note, model[i].note, hit->note_bytes), 0);
            return;
        }
    }
    cr_assert_fail("a hit that was never added");
}

struct recall {
    uint64_t wanted;
    uint64_t found;
};

/* Every hit is right; how many of those of a scan are found is added up. */
static void check_lookup(struct lexical_index *index, uint32_t scope,
                         const struct sparse_vector *vector, struct recall *recall)
{
    static double cosines[ENTRIES];
    struct lexical_hit hits[LEXICAL_HITS_MAX];
    uint8_t scope_id[LEXICAL_SCOPE_BYTES];
    size_t length = 0;
    id_of(scope + ENTRIES, scope_id);
    cr_assert_eq(lexical_index_best(index, scope_id, vector, COSINE_MIN, HITS, hits, &length), 0);
    const size_t wanted = scan(scope, vector, cosines);
    cr_assert_leq(length, wanted);
    for (size_t i = 0; i < length; i++) {
        check_hit(&hits[i], scope, vector);
        cr_assert(i == 0 || hits[i].cosine <= hits[i - 1].cosine);
        recall->found += hits[i].cosine >= cosines[wanted - 1] - 1e-9;
    }
    recall->wanted += wanted;
}

static struct lexical_index *new_index(uint32_t entries_max, size_t bytes_max)
{
    const struct lexical_index_options options = {.entries_max = entries_max,
                                                  .bytes_max = bytes_max};
    struct lexical_index *index = NULL;
    cr_assert_eq(lexical_index_create(&options, &index), 0);
    return index;
}

static void set_up(void)
{
    model = calloc(ENTRIES, sizeof(*model));
    cr_assert_not_null(model);
}

static void tear_down(void)
{
    free(model);
}

TestSuite(lexical_index, .init = set_up, .fini = tear_down);

static void change(struct lexical_index *index, struct dice *dice, uint32_t chance_of_removal)
{
    const uint32_t number = dice_below(dice, ENTRIES);
    struct model_entry *entry = &model[number];
    if (dice_below(dice, 100) < chance_of_removal) {
        cr_assert_eq(index_remove(index, number), entry->is_there);
        entry->is_there = false;
    } else {
        some_entry(dice, entry);
        cr_assert_eq(index_add(index, number, entry), 0);
    }
}

Test(lexical_index, finds_what_a_scan_finds_while_entries_come_go_and_change)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct dice dice = {.state = seed};
        struct lexical_index *index = new_index(ENTRIES + 1, SIZE_MAX);
        struct recall recall = {.wanted = 0};
        memset(model, 0, ENTRIES * sizeof(*model));
        for (size_t round = 0; round < ROUNDS; round++) {
            /* It grows, shrinks, and grows again. */
            change(index, &dice, round / (ROUNDS / 3) == 1 ? 80 : 25);
            if (round % LOOKED_UP_EVERY == 0) {
                const struct model_entry *like = &model[dice_below(&dice, ENTRIES)];
                struct sparse_vector vector;
                varied_vector(&dice, &like->vector, &vector);
                check_lookup(index, some_scope(&dice), &vector, &recall);
            }
        }
        cr_assert_gt(recall.wanted, 1000);
        cr_assert_geq((double)recall.found, 0.98 * (double)recall.wanted, "seed %lu: %lu of %lu",
                      seed, recall.found, recall.wanted);
        lexical_index_destroy(&index);
    }
}

Test(lexical_index, a_small_scope_is_searched_exactly)
{
    struct dice dice = {.state = 5};
    struct lexical_index *index = new_index(ENTRIES, SIZE_MAX);
    struct recall recall = {.wanted = 0};
    for (uint32_t i = 0; i < 120; i++) {
        some_entry(&dice, &model[i]);
        model[i].scope = 3;
        cr_assert_eq(index_add(index, i, &model[i]), 0);
    }
    for (uint32_t i = 0; i < 120; i++) {
        struct sparse_vector vector;
        varied_vector(&dice, &model[i].vector, &vector);
        check_lookup(index, 3, &vector, &recall);
        check_lookup(index, 4, &vector, &recall);
    }
    cr_assert_gt(recall.wanted, 100);
    cr_assert_eq(recall.found, recall.wanted);
    lexical_index_destroy(&index);
}

Test(lexical_index, an_entry_finds_itself_and_is_gone_when_removed)
{
    struct dice dice = {.state = 6};
    struct lexical_index *index = new_index(ENTRIES, SIZE_MAX);
    uint8_t scope[LEXICAL_SCOPE_BYTES];
    id_of(ENTRIES, scope);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        some_entry(&dice, &model[i]);
        model[i].scope = 0;
        cr_assert_eq(index_add(index, i, &model[i]), 0);
    }
    for (uint32_t i = 0; i < ENTRIES; i++) {
        struct lexical_hit hits[LEXICAL_HITS_MAX];
        struct lexical_hit hit;
        size_t length = 0;
        uint8_t key[LEXICAL_KEY_BYTES];
        id_of(i, key);
        cr_assert_eq(lexical_index_best(index, scope, &model[i].vector, 0.5, 1, hits, &length), 0);
        cr_assert_eq(length, 1);
        cr_assert_float_eq(hits[0].cosine, 1, 1e-9);
        cr_assert(lexical_index_find(index, key, &hit));
        cr_assert_eq(hit.note_bytes, model[i].note_bytes);
        cr_assert(index_remove(index, i));
        cr_assert_not(index_remove(index, i));
        cr_assert_not(lexical_index_find(index, key, &hit));
    }
    lexical_index_destroy(&index);
}

/* All have the same common features, and one of their own, which is read first. */
Test(lexical_index, a_search_that_takes_too_long_finds_the_rare_features_only)
{
    enum { MANY = 12000, COMMON = 3 };
    const struct lexical_index_options options = {
        .entries_max = MANY, .bytes_max = SIZE_MAX, .read_ns_max = 1};
    struct lexical_index *index = NULL;
    struct lexical_index_stats stats;
    struct lexical_hit hits[LEXICAL_HITS_MAX];
    struct model_entry entry = {.is_there = true};
    uint8_t scope[LEXICAL_SCOPE_BYTES];
    uint8_t key[LEXICAL_KEY_BYTES];
    size_t length = 0;
    cr_assert_eq(lexical_index_create(&options, &index), 0);
    id_of(ENTRIES, scope);
    for (uint32_t i = 0; i < MANY; i++) {
        entry.vector = (struct sparse_vector){.length = 0};
        vector_add(&entry.vector, 1000 + i, 200);
        for (uint32_t common = 0; common < COMMON; common++) {
            vector_add(&entry.vector, common, 100);
        }
        sparse_vector_set_norm(&entry.vector);
        cr_assert_eq(index_add(index, i, &entry), 0);
    }
    cr_assert_eq(lexical_index_best(index, scope, &entry.vector, COSINE_MIN, 1, hits, &length), 0);
    id_of(MANY - 1, key);
    cr_assert_eq(length, 1);
    cr_assert_arr_eq(hits[0].key, key, LEXICAL_KEY_BYTES);
    cr_assert_float_eq(hits[0].cosine, 1, 1e-9);
    lexical_index_read_stats(index, &stats);
    cr_assert_eq(stats.searches_cut, 1);
    lexical_index_destroy(&index);
}

Test(lexical_index, an_emptied_index_gives_its_memory_back)
{
    struct dice dice = {.state = 8};
    struct lexical_index *index = new_index(ENTRIES, SIZE_MAX);
    struct lexical_index_stats stats;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        some_entry(&dice, &model[i]);
        cr_assert_eq(index_add(index, i, &model[i]), 0);
    }
    lexical_index_read_stats(index, &stats);
    cr_assert_eq(stats.entries, ENTRIES);
    cr_assert_gt(stats.postings, ENTRIES);
    cr_assert_geq(stats.bytes, stats.bytes_used);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        cr_assert(index_remove(index, i));
    }
    while (lexical_index_work(index)) {
    }
    lexical_index_read_stats(index, &stats);
    cr_assert_eq(stats.entries, 0);
    cr_assert_eq(stats.scopes, 0);
    cr_assert_eq(stats.postings, 0);
    cr_assert_eq(stats.slots_waiting, 0);
    cr_assert_leq(stats.bytes_used, 64 << 10);
    cr_assert_leq(stats.bytes, 5 << 20);
    lexical_index_destroy(&index);
}

Test(lexical_index, a_bounded_index_stays_within_its_bytes_for_ever)
{
    enum { BYTES_MAX = 1 << 20, TURNS = 30000, MARGIN = 64 << 10 };
    struct dice dice = {.state = 9};
    struct lexical_index *index = new_index(ENTRIES, BYTES_MAX);
    struct lexical_index_stats stats;
    uint32_t oldest = 0;
    uint64_t evicted = 0;
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        struct model_entry entry;
        some_entry(&dice, &entry);
        int r;
        while ((r = index_add(index, turn, &entry)) == -ENOBUFS) {
            cr_assert_lt(oldest, turn);
            evicted += index_remove(index, oldest++);
        }
        cr_assert_eq(r, 0);
        lexical_index_read_stats(index, &stats);
        cr_assert_leq(stats.bytes_used, BYTES_MAX + MARGIN);
        cr_assert_leq(stats.bytes, 3 * (2 << 20));
    }
    cr_assert_gt(evicted, 20000);
    cr_assert_gt(stats.entries, 300);
    cr_assert_eq(stats.postings_lost, 0);
    lexical_index_destroy(&index);
}

Test(lexical_index, a_full_index_says_so_and_replaces_still)
{
    struct dice dice = {.state = 10};
    struct lexical_index *index = new_index(10, SIZE_MAX);
    struct model_entry entry;
    some_entry(&dice, &entry);
    for (uint32_t i = 0; i < 10; i++) {
        cr_assert_eq(index_add(index, i, &entry), 0);
    }
    cr_assert_eq(index_add(index, 10, &entry), -ENOBUFS);
    cr_assert_eq(index_add(index, 9, &entry), 0);
    cr_assert(index_remove(index, 3));
    cr_assert_eq(index_add(index, 10, &entry), 0);
    lexical_index_destroy(&index);
}

Test(lexical_index, refuses_vectors_that_break_their_promises)
{
    struct dice dice = {.state = 11};
    struct lexical_index *index = new_index(10, SIZE_MAX);
    struct model_entry entry;
    some_entry(&dice, &entry);
    entry.vector.norm_squared--;
    cr_assert_eq(index_add(index, 0, &entry), -EINVAL);
    some_entry(&dice, &entry);
    entry.vector.items[1] = entry.vector.items[0];
    sparse_vector_set_norm(&entry.vector);
    cr_assert_eq(index_add(index, 0, &entry), -EINVAL);
    some_entry(&dice, &entry);
    entry.vector.items[1] = sparse_item(77, 0);
    sparse_vector_set_norm(&entry.vector);
    cr_assert_eq(index_add(index, 0, &entry), -EINVAL);
    entry.vector.length = 0;
    entry.vector.norm_squared = 0;
    cr_assert_eq(index_add(index, 0, &entry), -EINVAL);
    entry.vector.length = SPARSE_ITEMS_MAX + 1;
    cr_assert_eq(index_add(index, 0, &entry), -EINVAL);
    lexical_index_destroy(&index);
}

Test(lexical_index, the_longest_texts_are_found_too)
{
    struct dice dice = {.state = 12};
    struct lexical_index *index = new_index(ENTRIES, SIZE_MAX);
    struct recall recall = {.wanted = 0};
    for (uint32_t i = 0; i < 600; i++) {
        model[i] = (struct model_entry){.is_there = true};
        while (model[i].vector.length < SPARSE_ITEMS_MAX) {
            vector_add(&model[i].vector, dice_below(&dice, 1 + dice_below(&dice, 20000)) * 801,
                       1 + dice_below(&dice, SPARSE_WEIGHT_MAX));
        }
        sparse_vector_set_norm(&model[i].vector);
        cr_assert_eq(index_add(index, i, &model[i]), 0);
    }
    for (uint32_t i = 0; i < 600; i++) {
        struct sparse_vector vector;
        varied_vector(&dice, &model[i].vector, &vector);
        check_lookup(index, 0, &vector, &recall);
    }
    cr_assert_geq(recall.found, recall.wanted * 98 / 100);
    lexical_index_destroy(&index);
}

/* After each lack of memory the index is as the model says, or finds a little less. */
Test(lexical_index, lives_without_memory)
{
    struct dice dice = {.state = 13};
    struct lexical_index *index = new_index(ENTRIES, SIZE_MAX);
    struct recall recall = {.wanted = 0};
    uint64_t refused = 0;
    for (size_t round = 0; round < ROUNDS; round++) {
        const uint32_t number = dice_below(&dice, ENTRIES);
        struct model_entry entry;
        some_entry(&dice, &entry);
        const bool is_removal = dice_below(&dice, 4) == 0;
        if (round % 3 == 0) {
            let_memory_be_scarce((int)dice_below(&dice, 4));
        }
        const int r =
            is_removal ? (int)index_remove(index, number) : index_add(index, number, &entry);
        let_memory_be_plenty();
        if (is_removal) {
            cr_assert_eq(r, model[number].is_there);
            model[number].is_there = false;
        } else if (r == 0) {
            model[number] = entry;
        } else {
            cr_assert_eq(r, -ENOMEM);
            refused++;
        }
        if (round % LOOKED_UP_EVERY == 0 && round > ROUNDS / 2) {
            struct sparse_vector vector;
            varied_vector(&dice, &model[number].vector, &vector);
            check_lookup(index, model[number].scope, &vector, &recall);
        }
    }
    cr_assert_geq(recall.found, recall.wanted * 9 / 10);
    cr_assert_gt(refused, 0);
    lexical_index_destroy(&index);
}

Test(lexical_index, a_search_without_memory_says_so)
{
    struct dice dice = {.state = 14};
    struct lexical_index *index = new_index(ENTRIES, SIZE_MAX);
    struct lexical_hit hits[LEXICAL_HITS_MAX];
    uint8_t scope[LEXICAL_SCOPE_BYTES];
    size_t length = 0;
    struct model_entry entry;
    id_of(ENTRIES, scope);
    for (uint32_t i = 0; i < 1000; i++) {
        some_entry(&dice, &entry);
        entry.scope = 0;
        cr_assert_eq(index_add(index, i, &entry), 0);
    }
    let_memory_be_scarce(0);
    const int r = lexical_index_best(index, scope, &entry.vector, COSINE_MIN, HITS, hits, &length);
    let_memory_be_plenty();
    cr_assert_eq(r, -ENOMEM);
    cr_assert_eq(lexical_index_best(index, scope, &entry.vector, COSINE_MIN, HITS, hits, &length),
                 0);
    cr_assert_gt(length, 0);
    lexical_index_destroy(&index);
}
