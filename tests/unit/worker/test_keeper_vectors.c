/* The keeper with dense vectors: made by its thread, or brought. */
#include <criterion/criterion.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/remove_tree.h"
#include "worker/cache/keeper.h"
#include "worker/cache/text_embedder.h"
#include "worker/cache/vector_index.h"
#include "worker/cache/wanted.h"

enum { DIMENSIONS = 26 };
static char directory[] = "/tmp/tiermq-vectors-XXXXXX";
static char path[64];
static struct keeper *keeper;
static struct keeper_options options;
static char error[CACHE_ERROR_BYTES];
static const int64_t NOW = INT64_C(1800000000000);

/* Words of one initial mean the same. */
static int embed(struct text_embedder *embedder, const struct text_view *texts, size_t length,
                 float *ret_vectors)
{
    (void)embedder;
    memset(ret_vectors, 0, length * DIMENSIONS * sizeof(*ret_vectors));
    for (size_t i = 0; i < length; i++) {
        for (size_t at = 0; at < texts[i].bytes; at++) {
            const int letter = tolower((unsigned char)texts[i].text[at]);
            if (isalpha(letter) && (at == 0 || texts[i].text[at - 1] == ' ')) {
                ret_vectors[i * DIMENSIONS + (size_t)(letter - 'a')] += 1;
            }
        }
    }
    return 0;
}

static void read_stats(const struct text_embedder *embedder, struct text_embedder_stats *ret_stats)
{
    (void)embedder;
    *ret_stats = (struct text_embedder_stats){.texts = 7};
}

static const struct text_embedder_class initials = {.embed = embed, .read_stats = read_stats};
static struct text_embedder by_initials = {.class = &initials, .id = "initials", .dim = DIMENSIONS};

static void quantised(const char *text, int8_t ret_vector[DIMENSIONS])
{
    float vector[DIMENSIONS];
    const struct text_view view = {text, strlen(text)};
    cr_assert_eq(embed(&by_initials, &view, 1, vector), 0);
    cr_assert(vector_quantise(vector, DIMENSIONS, ret_vector));
}

static void open_with(struct keeper_embedder embedder)
{
    keeper_close(&keeper);
    options.embedder = embedder;
    cr_assert_eq(keeper_open(&options, &keeper, error), 0, "%s", error);
}

static const struct keeper_embedder made_here = {
    .name = "initials/1", .dimensions = DIMENSIONS, .immediate = &by_initials};
static const struct keeper_embedder is_brought = {.name = "http:a/1", .dimensions = DIMENSIONS};
static const struct keeper_embedder another = {.name = "http:b/1", .dimensions = DIMENSIONS};

static void start(void)
{
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/cache", directory);
    options = (struct keeper_options){
        .store = {.path = path, .write_buffer_bytes = 1 << 20, .block_cache_bytes = 1 << 20},
        .is_near = true,
        .entries_max = 1000,
        .bytes_max = 1 << 30,
        .memory_bytes_max = 64 << 20};
}

static void stop(void)
{
    keeper_close(&keeper);
    remove_tree(directory);
}

TestSuite(keeper_vectors, .init = start, .fini = stop, .timeout = 60);

static char *labels[] = {"eu", "ch"}; /* what who sees the text of an entry must have … */
static size_t labels_length;          /* … of which so many */

static void fill(uint8_t number, const char *text, const int8_t *vector)
{
    const uint8_t key[CACHE_KEY_BYTES] = {number};
    uint8_t scope[CACHE_SCOPE_BYTES] = {1};
    Record__CacheAbout about = RECORD__CACHE_ABOUT__INIT;
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    entry.about = &about;
    entry.body = (ProtobufCBinaryData){6, (uint8_t *)"answer"};
    about.tenant = "shop";
    about.text = (char *)text;
    about.scope = (ProtobufCBinaryData){CACHE_SCOPE_BYTES, scope};
    about.filled_unix_ms = (uint64_t)NOW;
    about.expires_unix_ms = about.stale_until_unix_ms = (uint64_t)NOW + 3600000;
    about.residency = labels;
    about.n_residency = labels_length;
    cr_assert_eq(keeper_fill(keeper, key, &entry, vector, false, keeper_latest(keeper), NOW, error), 0,
                 "%s", error);
}

static struct cache_result look(const char *text, double threshold, const int8_t *vector)
{
    const struct cache_query query = {.key = {255},
                                      .threshold = threshold,
                                      .scope = {1},
                                      .text = text,
                                      .may_be_near = true,
                                      .vector = vector};
    struct cache_result result;
    cr_assert_eq(keeper_lookup(keeper, &query, NOW, &result, error), 0, "%s", error);
    if (result.entry != NULL) {
        record__cache_entry__free_unpacked(result.entry, NULL);
        result.entry = NULL;
    }
    return result;
}

static struct cache_result look_by_vector(const char *text, double threshold)
{
    int8_t vector[DIMENSIONS];
    quantised(text, vector);
    return look(text, threshold, vector);
}

static struct keeper_stats stats(void)
{
    struct keeper_stats all;
    keeper_read_stats(keeper, &all);
    return all;
}

/* As the thread: steps while there is more. */
static void sweep(int64_t now)
{
    for (int i = 0; i < 1000; i++) {
        const int r = keeper_step(keeper, now, error);
        cr_assert_geq(r, 0, "%s", error);
        if (r == 0) {
            return;
        }
    }
    cr_assert_fail("a sweep does not end");
}

/* Answers what is wanted; returns how many texts that were. */
static size_t bring(bool is_known, bool has_vector)
{
    struct wanted *wanted = keeper_take_wanted(keeper);
    if (wanted == NULL) {
        return 0;
    }
    const size_t length = wanted->length;
    for (size_t i = 0; i < length; i++) {
        struct wanted_text *text = &wanted->texts[i];
        text->is_known = is_known;
        if (is_known && has_vector) {
            text->vector = malloc(DIMENSIONS);
            quantised(text->text, text->vector);
        }
    }
    cr_assert_eq(keeper_bring(keeper, wanted, error), 0, "%s", error);
    wanted_destroy(&wanted);
    return length;
}

Test(keeper_vectors, made_here_a_paraphrase_is_found_and_guards_hold)
{
    open_with(made_here);
    fill(1, "begin quiet zebra", NULL);
    const struct cache_result same = look("boot quick zoo", 3.9, NULL);
    cr_assert_eq(same.answer, CACHE_ANSWER_NEAR_HIT, "score %f", same.score);
    const struct cache_result guarded = look("boot quick zoo 7", 3.9, NULL);
    cr_assert_eq(guarded.answer, CACHE_ANSWER_MISS);
    cr_assert_lt(guarded.score, same.score - 1, "a number speaks against it");
    cr_assert_eq(stats().texts, 7);
}

Test(keeper_vectors, the_index_of_another_embedder_is_made_again)
{
    open_with((struct keeper_embedder){.name = NULL});
    fill(1, "begin quiet zebra", NULL);
    cr_assert_not(look("boot quick zoo", INFINITY, NULL).has_candidate);
    open_with(made_here);
    sweep(NOW);
    cr_assert_eq(stats().indexed, 1);
    cr_assert_eq(look("boot quick zoo", 3.9, NULL).answer, CACHE_ANSWER_NEAR_HIT);
    open_with((struct keeper_embedder){.name = NULL});
    sweep(NOW);
    cr_assert_not(look("boot quick zoo", INFINITY, NULL).has_candidate);
}

Test(keeper_vectors, what_is_brought_outlives_a_restart)
{
    int8_t vector[DIMENSIONS];
    open_with(is_brought);
    quantised("begin quiet zebra", vector);
    fill(1, "begin quiet zebra", vector);
    cr_assert_eq(look_by_vector("boot quick zoo", 3.9).answer, CACHE_ANSWER_NEAR_HIT);
    cr_assert_not(look("boot quick zoo", 0, NULL).has_candidate, "without a vector exact alone");
    open_with(is_brought);
    sweep(NOW);
    cr_assert_eq(bring(true, true), 0, "nothing is asked again");
    cr_assert_eq(look_by_vector("boot quick zoo", 3.9).answer, CACHE_ANSWER_NEAR_HIT);
}

Test(keeper_vectors, what_lacks_a_vector_is_wanted_and_brought)
{
    open_with(is_brought);
    sweep(NOW);
    fill(1, "begin quiet zebra", NULL);
    cr_assert_eq(stats().wanted, 1);
    cr_assert_not(look_by_vector("boot quick zoo", 0).has_candidate);
    cr_assert_eq(bring(true, true), 1);
    cr_assert_eq(stats().wanted, 0);
    cr_assert_eq(look_by_vector("boot quick zoo", 3.9).answer, CACHE_ANSWER_NEAR_HIT);
}

Test(keeper_vectors, a_text_of_which_nothing_is_known_is_asked_for_once)
{
    open_with(is_brought);
    fill(1, "begin quiet zebra", NULL);
    fill(2, "?!", NULL);
    cr_assert_eq(bring(true, false), 1, "and one that cannot be compared never");
    cr_assert_eq(stats().without_vector, 1);
    open_with(is_brought);
    sweep(NOW);
    cr_assert_eq(bring(true, true), 0);
    cr_assert_eq(stats().indexed, 0);
}

Test(keeper_vectors, no_text_is_shown_to_an_embedder_without_its_labels)
{
    static char *const both[] = {"ch", "us", "eu"};
    int8_t vector[DIMENSIONS];
    struct keeper_embedder labelled = {
        .name = "http:c/1", .dimensions = DIMENSIONS, .labels = both, .labels_length = 2};
    open_with((struct keeper_embedder){.name = NULL});
    labels_length = 2;
    fill(1, "begin quiet zebra", NULL);
    labels_length = 0;
    fill(2, "calm daring eagle", NULL);
    open_with(is_brought);
    sweep(NOW);
    cr_assert_eq(bring(true, true), 1, "the one without labels");
    open_with(labelled);
    sweep(NOW);
    cr_assert_eq(bring(true, true), 1, "eu is lacking");
    labelled.name = "http:d/1";
    labelled.labels_length = 3;
    open_with(labelled);
    sweep(NOW);
    cr_assert_eq(bring(true, true), 2);
    quantised("begin quiet zebra", vector);
    cr_assert_eq(look("boot quick zoo", 3.9, vector).answer, CACHE_ANSWER_NEAR_HIT);
}

Test(keeper_vectors, what_was_not_answered_is_wanted_again_later)
{
    open_with(is_brought);
    sweep(NOW);
    fill(1, "begin quiet zebra", NULL);
    cr_assert_eq(bring(false, false), 1);
    sweep(NOW + 1000);
    cr_assert_eq(bring(true, true), 0, "not at once");
    sweep(NOW + 100000);
    sweep(NOW + 101000);
    cr_assert_eq(bring(true, true), 1);
    cr_assert_eq(look_by_vector("boot quick zoo", 3.9).answer, CACHE_ANSWER_NEAR_HIT);
}

static void fill_many(size_t length)
{
    int8_t vector[DIMENSIONS];
    char text[64];
    for (size_t i = 0; i < length; i++) {
        snprintf(text, sizeof(text), "begin quiet zebra %c%c", (char)('a' + i % 26),
                 (char)('a' + i / 26));
        quantised(text, vector);
        fill((uint8_t)i, text, vector);
    }
}

Test(keeper_vectors, of_another_embedder_all_are_brought_again_in_bounded_batches)
{
    open_with(is_brought);
    fill_many(200);
    open_with(another);
    cr_assert(stats().is_building);
    size_t brought = 0, n = 0;
    do {
        sweep(NOW);
        n = bring(true, true);
        cr_assert_leq(n, WANTED_MAX);
        brought += n;
    } while (n > 0);
    cr_assert_eq(brought, 200, "each once, not %zu", brought);
    cr_assert_not(stats().is_building);
    cr_assert_eq(stats().indexed, 200);
    open_with(another);
    sweep(NOW);
    cr_assert_eq(bring(true, true), 0, "they are stored");
    cr_assert_eq(stats().indexed, 200);
}

Test(keeper_vectors, invalidations_are_swept_while_no_vector_comes)
{
    open_with(is_brought);
    fill_many(200);
    open_with(another);
    sweep(NOW);
    struct wanted *wanted = keeper_take_wanted(keeper);
    cr_assert_not_null(wanted);
    sweep(NOW);
    cr_assert(stats().is_building, "it waits");
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.text_prefix = "begin quiet zebra a";
    keeper_invalidate(keeper, &selector, NOW);
    sweep(NOW);
    cr_assert_eq(keeper_swept(keeper), 1);
    cr_assert(stats().is_building, "what was left out is still to come");
    cr_assert_eq(keeper_bring(keeper, wanted, error), 0);
    wanted_destroy(&wanted);
    size_t n = 0;
    do {
        sweep(NOW);
        n = bring(true, true);
    } while (n > 0);
    cr_assert_eq(stats().indexed, stats().store.entries);
}

Test(keeper_vectors, what_has_gone_or_is_denied_meanwhile_is_not_brought_back)
{
    const uint8_t denied[CACHE_KEY_BYTES] = {2};
    open_with(is_brought);
    sweep(NOW);
    fill(1, "begin quiet zebra", NULL);
    fill(2, "begin quiet zebra again", NULL);
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    uint8_t key[CACHE_KEY_BYTES] = {1};
    selector.key = (ProtobufCBinaryData){CACHE_KEY_BYTES, key};
    keeper_invalidate(keeper, &selector, NOW);
    cr_assert_eq(keeper_deny_near(keeper, denied, error), 0);
    sweep(NOW);
    cr_assert_eq(bring(true, true), 2);
    cr_assert_eq(stats().indexed, 0);
    cr_assert_eq(stats().store.entries, 1);
}
