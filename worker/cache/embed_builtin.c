#include "worker/cache/embed_builtin.h"

#include <stdbool.h>
#include <string.h>

enum { SLOTS = 1024 /* twice SPARSE_ITEMS_MAX: probes stay short */, GRAM_MIN = 3, GRAM_MAX = 5 };

/* How much a kind of feature says beside a word; tried on train_clusters: see tools/cache-fit. */
static const float WEIGHT_PAIR = 0.5F;
static const float WEIGHT_GRAM = 0.25F;

struct sums {
    uint16_t slots[SLOTS]; /* 1 + index into buckets; 0: free */
    uint32_t buckets[SPARSE_ITEMS_MAX];
    float weights[SPARSE_ITEMS_MAX];
    size_t length;
};

/* Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4); the highest bits are best. */
static uint32_t bucket_of(uint64_t feature)
{
    return (uint32_t)((feature * UINT64_C(0x9E3779B97F4A7C15)) >> (64 - SPARSE_BUCKET_BITS));
}

/* What finds no room is left out: words and pairs come first. */
static void add(struct sums *sums, uint32_t bucket, float weight)
{
    size_t slot = bucket % SLOTS;
    while (sums->slots[slot] != 0) {
        const size_t index = sums->slots[slot] - 1U;
        if (sums->buckets[index] == bucket) {
            sums->weights[index] += weight;
            return;
        }
        slot = (slot + 1) % SLOTS;
    }
    if (sums->length < SPARSE_ITEMS_MAX) {
        sums->buckets[sums->length] = bucket;
        sums->weights[sums->length] = weight;
        sums->slots[slot] = (uint16_t)++sums->length;
    }
}

static void add_words(struct sums *sums, const struct profile *profile)
{
    float weight_before = 0;
    for (size_t i = 0; i < profile->length; i++) {
        const struct profile_word *word = &profile->words[i];
        const float weight = profile_word_weight(word);
        add(sums, bucket_of(word->hash), weight);
        if (i > 0) {
            const uint64_t pair = (uint64_t)word[-1].hash << 32 | word->hash;
            add(sums, bucket_of(pair), WEIGHT_PAIR * (weight_before + weight) / 2);
        }
        weight_before = weight;
    }
}

/* Grams over "_word_", so that a beginning and an end count as such. */
static void add_grams(struct sums *sums, const char *text, size_t bytes, float weight)
{
    unsigned char framed[WORD_BYTES_MAX + 2];
    framed[0] = framed[bytes + 1] = '_';
    memcpy(framed + 1, text, bytes);
    for (size_t at = 0; at + GRAM_MIN <= bytes + 2; at++) {
        uint64_t gram = framed[at] | (uint64_t)framed[at + 1] << 8;
        for (size_t n = GRAM_MIN; n <= GRAM_MAX && at + n <= bytes + 2; n++) {
            gram |= (uint64_t)framed[at + n - 1] << (8 * (n - 1));
            add(sums, bucket_of(gram | UINT64_C(0xFF) << 56), weight);
        }
    }
}

static void quantise(const struct sums *sums, struct sparse_vector *vector)
{
    float largest = 1;
    for (size_t i = 0; i < sums->length; i++) {
        largest = sums->weights[i] > largest ? sums->weights[i] : largest;
    }
    const float scale = SPARSE_WEIGHT_MAX / largest;
    uint32_t norm_squared = 0;
    for (size_t i = 0; i < sums->length; i++) {
        const uint32_t rounded = (uint32_t)(sums->weights[i] * scale + 0.5F);
        const uint32_t weight = rounded > 0 ? rounded : 1;
        vector->items[i] = sparse_item(sums->buckets[i], weight);
        norm_squared += weight * weight;
    }
    vector->length = (uint16_t)sums->length;
    vector->norm_squared = norm_squared;
}

uint32_t embed_builtin_version(void)
{
    return (uint32_t)EMBED_BUILTIN_VERSION << 16 | profile_version();
}

void embed_builtin(const struct profile *profile, struct sparse_vector *ret_vector)
{
    struct sums sums;
    memset(sums.slots, 0, sizeof(sums.slots));
    sums.length = 0;
    add_words(&sums, profile);
    for (size_t i = 0; i < profile->length; i++) {
        const struct profile_word *word = &profile->words[i];
        if (word->kind == PROFILE_CONTENT) {
            add_grams(&sums, profile_text(profile) + word->text_at, word->text_bytes,
                      WEIGHT_GRAM * (float)profile_word_weight(word));
        }
    }
    quantise(&sums, ret_vector);
}
