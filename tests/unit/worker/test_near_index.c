#include "worker/cache/near_index.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const uint8_t scope[NEAR_SCOPE_BYTES] = {1}, other_scope[NEAR_SCOPE_BYTES] = {2};
static const uint8_t first[NEAR_KEY_BYTES] = {1}, second[NEAR_KEY_BYTES] = {2};
static struct near_text text;

static struct near_index *create(size_t dimensions)
{
    const struct near_index_options options = {
        .dimensions = dimensions, .entries_max = 100, .bytes_max = 1 << 24};
    struct near_index *index = NULL;
    cr_assert_eq(near_index_create(&options, &index), 0);
    return index;
}

static const struct near_text *read(const char *words, const float *vector)
{
    cr_assert(near_text_read(words, &text));
    if (vector != NULL) {
        cr_assert(near_text_set_dense(&text, vector, 3));
    }
    return &text;
}

static size_t best(struct near_index *index, const uint8_t *in, const struct near_text *query,
                   struct near_hit *hits)
{
    size_t length = 9;
    cr_assert_eq(near_index_best(index, in, query, 4, hits, &length), 0);
    return length;
}

Test(near_index, words_are_found_by_words_with_their_profile)
{
    struct near_index *index = create(0);
    struct near_hit hits[4];
    cr_assert_eq(near_index_add(index, scope, first, read("Which trains run at night?", NULL)), 0);
    cr_assert_eq(near_index_add(index, scope, second, read("What does the museum cost?", NULL)), 0);
    cr_assert(near_index_has(index, second));
    cr_assert_eq(best(index, scope, read("which trains run during the night", NULL), hits), 1);
    cr_assert_arr_eq(hits[0].key, first, NEAR_KEY_BYTES);
    cr_assert_gt(hits[0].profile->length, 3);
    cr_assert(profile_is_valid(hits[0].profile, hits[0].profile->bytes));
    cr_assert_eq(best(index, other_scope, &text, hits), 0);
    near_index_remove(index, first);
    cr_assert_not(near_index_has(index, first));
    cr_assert_eq(best(index, scope, &text, hits), 0);
    near_index_destroy(&index);
}

Test(near_index, vectors_are_found_by_vectors_whatever_the_words)
{
    struct near_index *index = create(3);
    struct near_hit hits[4];
    struct near_index_stats stats;
    cr_assert_eq(near_index_add(index, scope, first,
                                read("Which trains run at night?", (float[]){1, 0, 0.1F})),
                 0);
    cr_assert_eq(near_index_add(index, scope, second,
                                read("Which trains run at noon?", (float[]){0.5F, 1, 0})),
                 0);
    cr_assert_eq(best(index, scope, read("nocturnal rail service", (float[]){1, 0, 0}), hits), 2);
    cr_assert_arr_eq(hits[0].key, first, NEAR_KEY_BYTES);
    cr_assert_float_eq(hits[0].cosine, 0.995, 0.005);
    cr_assert(profile_is_valid(hits[0].profile, hits[0].profile->bytes));
    cr_assert_eq(best(index, other_scope, &text, hits), 0);
    near_index_read_stats(index, &stats);
    cr_assert_eq(stats.entries, 2);
    cr_assert_gt(stats.bytes, 0);
    near_index_remove(index, first);
    cr_assert_not(near_index_has(index, first));
    cr_assert_eq(best(index, scope, read("nocturnal rail service", (float[]){1, 0, 0}), hits), 1);
    near_index_destroy(&index);
}

Test(near_index, without_its_vector_a_text_is_neither_kept_nor_found)
{
    struct near_index *index = create(3);
    struct near_hit hits[4];
    cr_assert_eq(near_index_add(index, scope, first, read("Which trains run at night?", NULL)),
                 -EINVAL);
    cr_assert_eq(
        near_index_add(index, scope, first, read("Which trains run at night?", (float[]){1, 0, 0})),
        0);
    cr_assert_eq(best(index, scope, read("Which trains run at night?", NULL), hits), 0);
    cr_assert_not(near_text_set_dense(&text, (float[]){0, 0, 0}, 3), "nothing is known of it");
    near_index_destroy(&index);
}

Test(near_index, texts_without_words_or_with_too_many_are_not_compared)
{
    char long_text[4096] = "";
    for (size_t i = 0; i < PROFILE_WORDS_MAX + 1; i++) {
        strcat(long_text, "word ");
    }
    cr_assert_not(near_text_is_good(""));
    cr_assert_not(near_text_is_good("?!"));
    cr_assert_not(near_text_is_good(long_text));
    cr_assert(near_text_is_good("word"));
}

/* docs/cache.md, "What an entry takes in memory". */
static double bytes_an_entry(size_t dimensions)
{
    enum { ENTRIES = 5000 };
    const struct near_index_options options = {
        .dimensions = dimensions, .entries_max = ENTRIES, .bytes_max = 1 << 28};
    struct near_index *index = NULL;
    struct near_index_stats stats;
    static float vector[VECTOR_DIMENSIONS_MAX];
    uint64_t dice = 1;
    cr_assert_eq(near_index_create(&options, &index), 0);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        uint8_t key[NEAR_KEY_BYTES] = {(uint8_t)i, (uint8_t)(i >> 8)};
        char words[64];
        snprintf(words, sizeof(words), "how do I reset the password of router number %u", i);
        cr_assert(near_text_read(words, &text));
        for (size_t d = 0; d < dimensions; d++) {
            dice = dice * UINT64_C(6364136223846793005) + 1;
            vector[d] = (float)(dice >> 40) / (float)(1 << 24) - 0.5F;
        }
        (void)near_text_set_dense(&text, vector, dimensions);
        cr_assert_eq(near_index_add(index, scope, key, &text), 0);
    }
    near_index_read_stats(index, &stats);
    near_index_destroy(&index);
    return (double)stats.bytes / ENTRIES;
}

Test(near_index, an_entry_takes_what_the_documents_say)
{
    const double builtin = bytes_an_entry(0), small = bytes_an_entry(256),
                 large = bytes_an_entry(1536);
    cr_expect_lt(builtin, 1400, "%.0f", builtin);
    cr_expect_lt(small, 256 + 620, "%.0f", small);
    cr_expect_lt(large, 1536 + 620, "%.0f", large);
}
