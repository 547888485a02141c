/* Vectors of the keeper: who makes them, where they lie, which are missing. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/decision.h"
#include "worker/cache/keeper_state.h"
#include "worker/cache/text_embedder.h"
#include "worker/cache/wanted.h"

/* ---- texts ---- */

static void embed_here(struct keeper *keeper, const char *text, struct near_text *read)
{
    const struct text_view view = {.text = text, .bytes = strlen(text)};
    const struct keeper_embedder *embedder = &keeper->options.embedder;
    float vector[VECTOR_DIMENSIONS_MAX];
    if (text_embedder_embed(embedder->immediate, &view, 1, vector) == 0) {
        (void)near_text_set_dense(read, vector, embedder->dimensions);
    }
}

bool keeper_read_text(struct keeper *keeper, const char *text, struct near_text *ret_text)
{
    if (!near_text_read(text, ret_text)) {
        return false;
    }
    if (keeper->options.embedder.immediate != NULL) {
        embed_here(keeper, text, ret_text);
        return ret_text->has_dense;
    }
    return true;
}

double keeper_score(const struct keeper *keeper, const struct likeness *likeness)
{
    return keeper->options.embedder.name == NULL ? decision_score(decision_builtin(), likeness)
                                                 : decision_score_dense(likeness);
}

/* The items that it has: most texts have few. */
static int read_for_nearness(const char *text, void **ret_text)
{
    struct near_text read;
    *ret_text = NULL;
    if (!near_text_read(text, &read)) {
        return 0;
    }
    const size_t bytes =
        offsetof(struct sparse_vector, items) + read.sparse.length * sizeof(read.sparse.items[0]);
    *ret_text = malloc(bytes);
    if (*ret_text == NULL) {
        return -ENOMEM;
    }
    memcpy(*ret_text, &read.sparse, bytes);
    return 0;
}

static double nearness_of(const void *text, const void *other)
{
    return sparse_vector_cosine(text, other);
}

const struct nearness keeper_nearness = {.read = read_for_nearness, .cosine = nearness_of};

/* ---- the index ---- */

bool keeper_vectors_are_brought(const struct keeper *keeper)
{
    return keeper->options.embedder.name != NULL && keeper->options.embedder.immediate == NULL;
}

/* The text of an entry goes to no embedder that its job would not have been shown to. */
static bool may_be_embedded(const struct keeper *keeper, const Record__CacheAbout *about)
{
    const struct keeper_embedder *embedder = &keeper->options.embedder;
    size_t found = 0;
    for (size_t i = 0; i < about->n_residency; i++) {
        size_t at = 0;
        while (at < embedder->labels_length &&
               strcmp(embedder->labels[at], about->residency[i]) != 0) {
            at++;
        }
        found += at < embedder->labels_length;
    }
    return found == about->n_residency || !keeper_vectors_are_brought(keeper);
}

static bool may_be_near(const struct keeper *keeper, const Record__CacheAbout *about)
{
    return keeper->index != NULL && about->scope.len == CACHE_SCOPE_BYTES && !about->is_denied &&
           may_be_embedded(keeper, about);
}

bool keeper_has_vector(const struct keeper *keeper, const Record__CacheAbout *about)
{
    return !keeper_vectors_are_brought(keeper) || !may_be_near(keeper, about) ||
           strcmp(about->embedder, keeper->options.embedder.name) == 0;
}

void keeper_index(struct keeper *keeper, const uint8_t *key, const Record__CacheAbout *about,
                  const int8_t *vector)
{
    struct near_text text;
    if (!may_be_near(keeper, about) || !keeper_read_text(keeper, about->text, &text)) {
        return;
    }
    if (keeper_vectors_are_brought(keeper)) {
        text.has_dense = vector != NULL;
        if (vector != NULL) {
            memcpy(text.dense, vector, keeper->options.embedder.dimensions);
        }
    }
    (void)!near_index_add(keeper->index, about->scope.data, key, &text);
}

/* ---- what is wanted ---- */

bool keeper_has_room_for_wanted(const struct keeper *keeper, size_t length)
{
    return keeper->wanted == NULL || keeper->wanted->length + length <= WANTED_MAX;
}

/* A text that cannot be compared is never asked for. */
static void want(struct keeper *keeper, const uint8_t *key, const Record__CacheAbout *about)
{
    struct near_text text;
    if (!may_be_near(keeper, about) || !near_text_read(about->text, &text)) {
        return;
    }
    if ((keeper->wanted == NULL && wanted_create(&keeper->wanted) < 0) ||
        !wanted_add(keeper->wanted, key, about->text)) {
        keeper->has_skipped = true;
    }
}

int keeper_index_again(struct keeper *keeper, const uint8_t *key, const Record__CacheAbout *about,
                       char *ret_error)
{
    int8_t vector[VECTOR_DIMENSIONS_MAX];
    size_t bytes = 0;
    if (!keeper_vectors_are_brought(keeper)) {
        keeper_index(keeper, key, about, NULL);
        return 0;
    }
    int r =
        !may_be_near(keeper, about) ? 0
        : !keeper_has_vector(keeper, about)
            ? -ENOENT
            : cache_store_get_vector(keeper->store, key, vector, sizeof(vector), &bytes, ret_error);
    const bool is_ours = bytes == keeper->options.embedder.dimensions;
    if (r == -ENOENT || (r == 0 && bytes > 0 && !is_ours)) {
        want(keeper, key, about);
        return 0;
    }
    if (r == 0 && is_ours) {
        keeper_index(keeper, key, about, vector);
    }
    return r;
}

struct wanted *keeper_take_wanted(struct keeper *keeper)
{
    if (keeper->wanted == NULL || keeper->wanted_out > 0) {
        return NULL;
    }
    keeper->wanted_out = keeper->wanted->length;
    return TAKE(keeper->wanted);
}

/* ---- what is brought ---- */

static int put_vector(struct keeper *keeper, const uint8_t *key, Record__CacheAbout *about,
                      const int8_t *vector, char *ret_error)
{
    char *before = about->embedder;
    about->embedder = (char *)keeper->options.embedder.name;
    int r =
        cache_store_put_vector(keeper->store, key, about, vector,
                               vector == NULL ? 0 : keeper->options.embedder.dimensions, ret_error);
    about->embedder = before;
    return r;
}

/* The entry may have gone since, or be denied. */
static int bring_one(struct keeper *keeper, const struct wanted_text *text, char *ret_error)
{
    Record__CacheAbout *about = NULL;
    int r = cache_store_get_about(keeper->store, text->key, &about, ret_error);
    if (r == 0 && about != NULL && may_be_near(keeper, about) &&
        strcmp(about->text, text->text) == 0) {
        r = put_vector(keeper, text->key, about, text->vector, ret_error);
        keeper->without_vector += r == 0 && text->vector == NULL ? 1 : 0;
        if (r == 0 && text->vector != NULL) {
            keeper_index(keeper, text->key, about, text->vector);
        }
    }
    if (about != NULL) {
        record__cache_about__free_unpacked(about, NULL);
    }
    return r;
}

int keeper_add_vector(struct keeper *keeper, const uint8_t key[CACHE_KEY_BYTES],
                      uint64_t filled_unix_ms, const int8_t *vector,
                      char ret_error[CACHE_ERROR_BYTES])
{
    Record__CacheAbout *about = NULL;
    int r = cache_store_get_about(keeper->store, key, &about, ret_error);
    if (r < 0 || about == NULL) {
        return r;
    }
    if (keeper_vectors_are_brought(keeper) && about->filled_unix_ms == filled_unix_ms) {
        r = keeper_index_filled(keeper, key, about, vector, ret_error);
    }
    record__cache_about__free_unpacked(about, NULL);
    return r;
}

int keeper_bring(struct keeper *keeper, const struct wanted *wanted,
                 char ret_error[CACHE_ERROR_BYTES])
{
    int r = 0;
    keeper->wanted_out = 0;
    for (size_t i = 0; r == 0 && keeper_vectors_are_brought(keeper) && i < wanted->length; i++) {
        r = wanted->texts[i].is_known ? bring_one(keeper, &wanted->texts[i], ret_error) : 0;
    }
    return r;
}

int keeper_index_filled(struct keeper *keeper, const uint8_t *key, Record__CacheAbout *about,
                        const int8_t *vector, char *ret_error)
{
    int r = 0;
    if (keeper_vectors_are_brought(keeper) && may_be_near(keeper, about)) {
        if (vector == NULL) {
            want(keeper, key, about);
            return 0;
        }
        r = put_vector(keeper, key, about, vector, ret_error);
    }
    if (r == 0) {
        keeper_index(keeper, key, about, vector);
    }
    return r;
}
