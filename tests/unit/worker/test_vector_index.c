#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include "common/attributes.h"
#include "tests/unit/worker/dice.h"
#include "tests/unit/worker/scarce_memory.h"
#include "worker/cache/vector_index.h"

enum {
    DIMENSIONS = 100, /* no multiple of what vectors are padded to */
    CLUSTERS = 300,
    ENTRIES = 20000,
    SCOPES = 20,
    HITS = 8,
    ROUNDS = 60000,
    LOOKED_UP_EVERY = 150,
};

/* Entry i of the model has key i, and its number as its note. */
struct model_entry {
    bool is_there;
    uint32_t scope;
    int8_t values[DIMENSIONS];
};

static struct model_entry *model; /* ENTRIES */
static float (*centres)[DIMENSIONS];

static void id_of(uint32_t number, uint8_t ret_id[VECTOR_KEY_BYTES])
{
    struct dice dice = {.state = number};
    const uint64_t halves[2] = {dice_next(&dice), dice_next(&dice)};
    memcpy(ret_id, halves, sizeof(halves));
}

/* Nearly normal, by a sum of even ones. */
static float some_float(struct dice *dice)
{
    float sum = -3;
    for (size_t i = 0; i < 6; i++) {
        sum += (float)dice_below(dice, 10000) / 10000;
    }
    return sum;
}

static void some_values(struct dice *dice, int8_t ret_values[DIMENSIONS])
{
    const float *centre = centres[dice_below(dice, CLUSTERS)];
    float values[DIMENSIONS];
    for (size_t i = 0; i < DIMENSIONS; i++) {
        values[i] = centre[i] + 0.6F * some_float(dice);
    }
    cr_assert(vector_quantise(values, DIMENSIONS, ret_values));
}

static uint32_t some_scope(struct dice *dice)
{
    return dice_below(dice, 10) > 0 ? 0 : dice_below(dice, SCOPES);
}

static double cosine_of(const int8_t *a, const int8_t *b)
{
    double dot = 0;
    double squares[2] = {0, 0};
    for (size_t i = 0; i < DIMENSIONS; i++) {
        dot += a[i] * b[i];
        squares[0] += a[i] * a[i];
        squares[1] += b[i] * b[i];
    }
    return dot / sqrt(squares[0] * squares[1]);
}

static int index_add(struct vector_index *index, uint32_t number, const struct model_entry *entry)
{
    uint8_t scope[VECTOR_SCOPE_BYTES];
    uint8_t key[VECTOR_KEY_BYTES];
    id_of(entry->scope + ENTRIES, scope);
    id_of(number, key);
    return vector_index_add(index, scope, key, entry->values, &number, sizeof(number));
}

static bool index_remove(struct vector_index *index, uint32_t number)
{
    uint8_t key[VECTOR_KEY_BYTES];
    id_of(number, key);
    return vector_index_remove(index, key);
}

static int by_falling(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x < y) - (x > y);
}

struct recall {
    uint64_t wanted;
    uint64_t found;
};

static void check_lookup(const struct vector_index *index, uint32_t scope, const int8_t *values,
                         double cosine_min, struct recall *recall)
{
    static double cosines[ENTRIES];
    struct vector_hit hits[VECTOR_HITS_MAX];
    uint8_t scope_id[VECTOR_SCOPE_BYTES];
    size_t length = 0;
    size_t wanted = 0;
    id_of(scope + ENTRIES, scope_id);
    cr_assert_eq(vector_index_best(index, scope_id, values, cosine_min, HITS, hits, &length), 0);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        if (model[i].is_there && model[i].scope == scope) {
            const double cosine = cosine_of(values, model[i].values);
            if (cosine >= cosine_min) {
                cosines[wanted++] = cosine;
            }
        }
    }
    qsort(cosines, wanted, sizeof(double), by_falling);
    wanted = wanted < HITS ? wanted : HITS;
    cr_assert_leq(length, wanted);
    for (size_t i = 0; i < length; i++) {
        uint32_t number;
        cr_assert_eq(hits[i].note_bytes, sizeof(number));
        memcpy(&number, hits[i].note, sizeof(number));
        cr_assert(model[number].is_there);
        cr_assert_eq(model[number].scope, scope);
        cr_assert_float_eq(hits[i].cosine, cosine_of(values, model[number].values), 1e-5);
        cr_assert(i == 0 || hits[i].cosine <= hits[i - 1].cosine);
        recall->found += hits[i].cosine >= cosines[wanted - 1] - 1e-6;
    }
    recall->wanted += wanted;
}

static struct vector_index *new_index(uint32_t entries_max, size_t bytes_max)
{
    const struct vector_index_options options = {
        .dimensions = DIMENSIONS, .entries_max = entries_max, .bytes_max = bytes_max};
    struct vector_index *index = NULL;
    cr_assert_eq(vector_index_create(&options, &index), 0);
    return index;
}

static void set_up(void)
{
    struct dice dice = {.state = 1};
    model = calloc(ENTRIES, sizeof(*model));
    centres = calloc(CLUSTERS, sizeof(*centres));
    cr_assert_not_null(model);
    cr_assert_not_null(centres);
    for (size_t i = 0; i < CLUSTERS; i++) {
        for (size_t d = 0; d < DIMENSIONS; d++) {
            centres[i][d] = some_float(&dice);
        }
    }
}

static void tear_down(void)
{
    free(model);
    free(centres);
}

TestSuite(vector_index, .init = set_up, .fini = tear_down);

static void some_entry(struct dice *dice, struct model_entry *ret_entry)
{
    ret_entry->is_there = true;
    ret_entry->scope = some_scope(dice);
    some_values(dice, ret_entry->values);
}

Test(vector_index, finds_what_a_scan_finds_while_entries_come_go_and_change)
{
    struct dice dice = {.state = 2};
    struct vector_index *index = new_index(ENTRIES + 1, SIZE_MAX);
    struct recall recall = {.wanted = 0};
    for (size_t round = 0; round < ROUNDS; round++) {
        const uint32_t number = dice_below(&dice, ENTRIES);
        struct model_entry *entry = &model[number];
        /* It grows, shrinks, and grows again. */
        if (dice_below(&dice, 100) < (round / (ROUNDS / 4) == 2 ? 70U : 10U)) {
            cr_assert_eq(index_remove(index, number), entry->is_there);
            entry->is_there = false;
        } else {
            some_entry(&dice, entry);
            cr_assert_eq(index_add(index, number, entry), 0);
        }
        if (round % LOOKED_UP_EVERY == 0) {
            int8_t values[DIMENSIONS];
            some_values(&dice, values);
            check_lookup(index, some_scope(&dice), values, 0.2, &recall);
        }
    }
    struct vector_index_stats stats;
    vector_index_read_stats(index, &stats);
    cr_assert_gt(stats.entries, 12000);
    cr_assert_gt(stats.cells, 20);
    cr_assert_gt(recall.wanted, 1000);
    cr_assert_geq((double)recall.found, 0.98 * (double)recall.wanted, "%lu of %lu", recall.found,
                  recall.wanted);
    vector_index_destroy(&index);
}

Test(vector_index, a_scope_that_is_scanned_is_searched_exactly)
{
    struct dice dice = {.state = 3};
    struct vector_index *index = new_index(ENTRIES, SIZE_MAX);
    struct recall recall = {.wanted = 0};
    for (uint32_t i = 0; i < VECTOR_SCANNED_MIN; i++) {
        some_entry(&dice, &model[i]);
        model[i].scope = 1;
        cr_assert_eq(index_add(index, i, &model[i]), 0);
    }
    for (size_t i = 0; i < 100; i++) {
        int8_t values[DIMENSIONS];
        some_values(&dice, values);
        check_lookup(index, 1, values, -1, &recall);
        check_lookup(index, 2, values, -1, &recall);
    }
    cr_assert_eq(recall.wanted, 100 * HITS);
    cr_assert_eq(recall.found, recall.wanted);
    vector_index_destroy(&index);
}

Test(vector_index, very_many_equal_vectors_are_no_trouble)
{
    struct vector_index *index = new_index(ENTRIES, SIZE_MAX);
    struct recall recall = {.wanted = 0};
    struct dice dice = {.state = 4};
    struct model_entry entry;
    some_entry(&dice, &entry);
    entry.scope = 0;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        model[i] = entry;
        cr_assert_eq(index_add(index, i, &entry), 0);
    }
    check_lookup(index, 0, entry.values, 0.9, &recall);
    cr_assert_eq(recall.found, HITS);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        cr_assert(index_remove(index, i));
    }
    struct vector_index_stats stats;
    vector_index_read_stats(index, &stats);
    cr_assert_eq(stats.entries, 0);
    cr_assert_eq(stats.scopes, 0);
    cr_assert_eq(stats.cells, 0);
    cr_assert_leq(stats.bytes_used, 128 << 10);
    vector_index_destroy(&index);
}

Test(vector_index, a_full_index_says_so_and_replaces_still)
{
    struct dice dice = {.state = 5};
    struct vector_index *index = new_index(10, SIZE_MAX);
    struct model_entry entry;
    some_entry(&dice, &entry);
    for (uint32_t i = 0; i < 10; i++) {
        cr_assert_eq(index_add(index, i, &entry), 0);
    }
    cr_assert_eq(index_add(index, 10, &entry), -ENOBUFS);
    cr_assert_eq(index_add(index, 9, &entry), 0);
    cr_assert(index_remove(index, 3));
    cr_assert_eq(index_add(index, 10, &entry), 0);
    vector_index_destroy(&index);
    index = new_index(10, 1);
    cr_assert_eq(index_add(index, 0, &entry), -ENOBUFS);
    vector_index_destroy(&index);
}

Test(vector_index, refuses_what_has_no_direction)
{
    const struct vector_index_options options = {.dimensions = VECTOR_DIMENSIONS_MAX + 1,
                                                 .entries_max = 1};
    struct vector_index *index = NULL;
    struct model_entry zero = {.scope = 0};
    float values[DIMENSIONS] = {0};
    cr_assert_eq(vector_index_create(&options, &index), -EINVAL);
    index = new_index(10, SIZE_MAX);
    cr_assert_eq(index_add(index, 0, &zero), -EINVAL);
    cr_assert_not(vector_quantise(values, DIMENSIONS, zero.values));
    values[7] = NAN;
    cr_assert_not(vector_quantise(values, DIMENSIONS, zero.values));
    vector_index_destroy(&index);
}

Test(vector_index, quantised_cosines_are_near_the_true_ones)
{
    struct dice dice = {.state = 6};
    for (size_t turn = 0; turn < 1000; turn++) {
        float values[2][DIMENSIONS];
        int8_t quantised[2][DIMENSIONS];
        double dot = 0;
        double squares[2] = {0, 0};
        for (size_t i = 0; i < DIMENSIONS; i++) {
            values[0][i] = some_float(&dice);
            values[1][i] = values[0][i] + some_float(&dice);
            dot += (double)values[0][i] * (double)values[1][i];
            squares[0] += (double)values[0][i] * (double)values[0][i];
            squares[1] += (double)values[1][i] * (double)values[1][i];
        }
        for (size_t i = 0; i < 2; i++) {
            cr_assert(vector_quantise(values[i], DIMENSIONS, quantised[i]));
        }
        cr_assert_float_eq(cosine_of(quantised[0], quantised[1]),
                           dot / sqrt(squares[0] * squares[1]), 0.01);
    }
}

Test(vector_index, lives_without_memory)
{
    struct dice dice = {.state = 7};
    struct vector_index *index = new_index(ENTRIES, SIZE_MAX);
    struct recall recall = {.wanted = 0};
    uint64_t refused = 0;
    for (size_t round = 0; round < ROUNDS; round++) {
        const uint32_t number = dice_below(&dice, ENTRIES);
        struct model_entry entry;
        some_entry(&dice, &entry);
        const bool is_removal = dice_below(&dice, 4) == 0;
        if (round % 3 > 0) {
            let_memory_be_scarce((int)dice_below(&dice, 4) / 3);
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
        if (round % LOOKED_UP_EVERY == 0) {
            check_lookup(index, entry.scope, entry.values, 0.2, &recall);
        }
    }
    cr_assert_geq((double)recall.found, 0.98 * (double)recall.wanted);
    cr_assert_gt(refused, 0);
    vector_index_destroy(&index);
}
