#include "worker/cache/embed_hashed.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/embedder.h"
#include "worker/cache/text_vector.h"

struct embed_hashed {
    struct text_embedder base;
    uint64_t texts;
};

static int hashed_embed(struct text_embedder *base, const struct text_view *texts, size_t length,
                        float *ret_vectors)
{
    for (size_t i = 0; i < length; i++) {
        struct vector vector;
        float *floats = ret_vectors + i * EMBEDDER_DIMENSIONS;
        const size_t words = embedder_embed(texts[i].text, texts[i].bytes, &vector);
        const bool is_known = words > 0 && words <= EMBEDDER_WORDS_MAX;
        for (size_t j = 0; j < EMBEDDER_DIMENSIONS; j++) {
            floats[j] = is_known ? (float)vector.values[j] : 0;
        }
        text_vector_normalize(floats, EMBEDDER_DIMENSIONS);
    }
    CONTAINER_OF(base, struct embed_hashed, base)->texts += length;
    return 0;
}

static void hashed_read_stats(const struct text_embedder *base,
                              struct text_embedder_stats *ret_stats)
{
    const struct embed_hashed *embedder =
        CONTAINER_OF((struct text_embedder *)(uintptr_t)base, struct embed_hashed, base);
    *ret_stats = (struct text_embedder_stats){.texts = embedder->texts};
}

static void hashed_destroy(struct text_embedder *base)
{
    free(CONTAINER_OF(base, struct embed_hashed, base));
}

int embed_hashed_create(struct text_embedder **ret_embedder)
{
    static const struct text_embedder_class class = {
        .embed = hashed_embed, .read_stats = hashed_read_stats, .destroy = hashed_destroy};
    struct embed_hashed *embedder = calloc(1, sizeof(*embedder));
    if (embedder == NULL) {
        return -ENOMEM;
    }
    embedder->base = (struct text_embedder){
        .class = &class, .id = "builtin", .version = EMBEDDER_VERSION, .dim = EMBEDDER_DIMENSIONS};
    *ret_embedder = &embedder->base;
    return 0;
}
