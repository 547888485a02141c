#include "worker/cache/near_index.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/embed_builtin.h"
#include "worker/cache/lexical_index.h"
#include "worker/cache/text_embedder.h"

/* Of what is compared at all: below, nothing is the same question. The larger, the less of a
 * lexical index is read. */
static const double COSINE_MIN = 0.3;
/* Of a lookup's 3 ms beside a million entries: what follows reading takes less than the rest. */
enum { READ_NS_MAX = 1200000 };

static_assert((int)NEAR_HITS_MAX <= (int)LEXICAL_HITS_MAX, "hits of either index fit");
static_assert((int)NEAR_HITS_MAX <= (int)VECTOR_HITS_MAX, "hits of either index fit");

static_assert((int)TEXT_EMBEDDER_DIM_MAX <= (int)VECTOR_DIMENSIONS_MAX,
              "vectors of any embedder fit");

/* One of the two is NULL. */
struct near_index {
    struct lexical_index *lexical;
    struct vector_index *dense;
};

/* ---- texts ---- */

bool near_text_read(const char *text, struct near_text *ret_text)
{
    const size_t words = profile_make(text, strlen(text), &ret_text->profile);
    ret_text->has_dense = false;
    if (words == 0 || words > PROFILE_WORDS_MAX) {
        return false;
    }
    embed_builtin(&ret_text->profile.profile, &ret_text->sparse);
    return ret_text->sparse.length > 0;
}

bool near_text_is_good(const char *text)
{
    struct near_text read;
    return near_text_read(text, &read);
}

bool near_text_set_dense(struct near_text *text, const float *vector, size_t dimensions)
{
    text->has_dense =
        dimensions <= VECTOR_DIMENSIONS_MAX && vector_quantise(vector, dimensions, text->dense);
    return text->has_dense;
}

/* ---- the index ---- */

int near_index_create(const struct near_index_options *options, struct near_index **ret_index)
{
    struct near_index *index = calloc(1, sizeof(*index));
    if (index == NULL) {
        return -ENOMEM;
    }
    const uint32_t entries_max = options->entries_max < LEXICAL_ENTRIES_MAX
                                     ? (uint32_t)options->entries_max
                                     : LEXICAL_ENTRIES_MAX;
    const struct lexical_index_options lexical = {.entries_max = entries_max,
                                                  .bytes_max = options->bytes_max,
                                                  .read_ns_max = READ_NS_MAX};
    const struct vector_index_options dense = {.dimensions = options->dimensions,
                                               .entries_max = entries_max,
                                               .bytes_max = options->bytes_max};
    int r = options->dimensions == 0 ? lexical_index_create(&lexical, &index->lexical)
                                     : vector_index_create(&dense, &index->dense);
    if (r < 0) {
        free(index);
        return r;
    }
    *ret_index = index;
    return 0;
}

void near_index_destroy(struct near_index **index)
{
    struct near_index *old = TAKE(*index);
    if (old != NULL) {
        lexical_index_destroy(&old->lexical);
        vector_index_destroy(&old->dense);
        free(old);
    }
}

int near_index_add(struct near_index *index, const uint8_t scope[NEAR_SCOPE_BYTES],
                   const uint8_t key[NEAR_KEY_BYTES], const struct near_text *text)
{
    const union profile_buffer *profile = &text->profile;
    if (index->lexical != NULL) {
        return lexical_index_add(index->lexical, scope, key, &text->sparse, profile->bytes,
                                 profile->profile.bytes);
    }
    return text->has_dense ? vector_index_add(index->dense, scope, key, text->dense, profile->bytes,
                                              profile->profile.bytes)
                           : -EINVAL;
}

void near_index_remove(struct near_index *index, const uint8_t key[NEAR_KEY_BYTES])
{
    if (index->lexical != NULL) {
        (void)lexical_index_remove(index->lexical, key);
    } else {
        (void)vector_index_remove(index->dense, key);
    }
}

bool near_index_has(const struct near_index *index, const uint8_t key[NEAR_KEY_BYTES])
{
    struct lexical_hit hit;
    return index->lexical != NULL ? lexical_index_find(index->lexical, key, &hit)
                                  : vector_index_has(index->dense, key);
}

/* ---- searching ---- */

static int best_by_words(struct near_index *index, const uint8_t *scope,
                         const struct near_text *text, size_t hits_max, struct near_hit *ret_hits,
                         size_t *ret_length)
{
    struct lexical_hit hits[LEXICAL_HITS_MAX];
    int r = lexical_index_best(index->lexical, scope, &text->sparse, COSINE_MIN, hits_max, hits,
                               ret_length);
    for (size_t i = 0; r == 0 && i < *ret_length; i++) {
        ret_hits[i] = (struct near_hit){hits[i].key, hits[i].cosine, hits[i].note};
    }
    return r;
}

static int best_by_vector(const struct near_index *index, const uint8_t *scope,
                          const struct near_text *text, size_t hits_max, struct near_hit *ret_hits,
                          size_t *ret_length)
{
    struct vector_hit hits[VECTOR_HITS_MAX];
    int r =
        vector_index_best(index->dense, scope, text->dense, COSINE_MIN, hits_max, hits, ret_length);
    for (size_t i = 0; r == 0 && i < *ret_length; i++) {
        ret_hits[i] = (struct near_hit){hits[i].key, hits[i].cosine, hits[i].note};
    }
    return r;
}

int near_index_best(struct near_index *index, const uint8_t scope[NEAR_SCOPE_BYTES],
                    const struct near_text *text, size_t hits_max, struct near_hit *ret_hits,
                    size_t *ret_length)
{
    assert(hits_max <= NEAR_HITS_MAX);
    if (index->lexical != NULL) {
        return best_by_words(index, scope, text, hits_max, ret_hits, ret_length);
    }
    if (!text->has_dense) {
        *ret_length = 0;
        return 0;
    }
    return best_by_vector(index, scope, text, hits_max, ret_hits, ret_length);
}

/* ---- by and by ---- */

bool near_index_work(struct near_index *index)
{
    return index->lexical != NULL && lexical_index_work(index->lexical);
}

void near_index_read_stats(const struct near_index *index, struct near_index_stats *ret_stats)
{
    if (index->lexical != NULL) {
        struct lexical_index_stats stats;
        lexical_index_read_stats(index->lexical, &stats);
        *ret_stats = (struct near_index_stats){
            .entries = stats.entries, .bytes = stats.bytes, .searches_cut = stats.searches_cut};
    } else {
        struct vector_index_stats stats;
        vector_index_read_stats(index->dense, &stats);
        *ret_stats = (struct near_index_stats){.entries = stats.entries, .bytes = stats.bytes};
    }
}
