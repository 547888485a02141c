#include "worker/cache/embed_static.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "worker/cache/safetensors.h"
#include "worker/cache/text_vector.h"
#include "worker/cache/tokenizer.h"

enum { EMBED_STATIC_VERSION = 1 }; /* raised with every change here that changes vectors */

struct embed_static {
    struct text_embedder base;
    struct mapped_file file;
    struct safetensors tensors;
    const struct tensor *rows;    /* [rows, dim] */
    const struct tensor *weights; /* by token; NULL: 1 */
    const struct tensor *mapping; /* by token; NULL: its own number */
    struct tokenizer *tokenizer;
    size_t characters_max; /* what is beyond would mostly be cut as tokens */
    uint64_t texts;
};

/* ---- the tensors ---- */

static const struct tensor *find_rows(const struct safetensors *tensors)
{
    static const char *const names[] = {"embeddings", "embedding.weight", "0"};
    const struct tensor *only = NULL;
    size_t tables = 0;
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        const struct tensor *named = safetensors_find(tensors, names[i]);
        if (named != NULL) {
            return named;
        }
    }
    for (size_t i = 0; i < tensors->length; i++) {
        if (tensors->tensors[i].dimensions == 2) {
            only = &tensors->tensors[i];
            tables++;
        }
    }
    return tables == 1 ? only : NULL;
}

static bool is_one_of(enum tensor_type type, const enum tensor_type *types, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (types[i] == type) {
            return true;
        }
    }
    return false;
}

static int check_rows(const struct embed_static *embedder, char *ret_error)
{
    static const enum tensor_type types[] = {TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_I8};
    const struct tensor *rows = embedder->rows;
    if (rows == NULL || rows->dimensions != 2 ||
        !is_one_of(rows->type, types, ARRAY_LENGTH(types))) {
        return refusal_write(ret_error, "it has no tensor \"embeddings\" of [rows, dim] in F32, "
                                        "F16, BF16 or I8");
    }
    if (rows->shape[0] == 0 || rows->shape[1] == 0 || rows->shape[1] > TEXT_EMBEDDER_DIM_MAX) {
        return refusal_write(ret_error, "its vectors have not from 1 to %d dimensions",
                             TEXT_EMBEDDER_DIM_MAX);
    }
    return 0;
}

/* One number for each token of the tokenizer, at least. */
static int check_by_token(const struct embed_static *embedder, const struct tensor *tensor,
                          const enum tensor_type *types, size_t types_length, char *ret_error)
{
    if (tensor == NULL) {
        return 0;
    }
    if (tensor->dimensions != 1 || !is_one_of(tensor->type, types, types_length) ||
        tensor->shape[0] < tokenizer_ids(embedder->tokenizer)) {
        return refusal_write(ret_error, "its tensor \"%s\" has no number for each of %u tokens",
                             tensor->name, tokenizer_ids(embedder->tokenizer));
    }
    return 0;
}

/* Every token has a row. */
static int check_mapping(const struct embed_static *embedder, char *ret_error)
{
    const size_t rows = embedder->rows->shape[0];
    const uint32_t ids = tokenizer_ids(embedder->tokenizer);
    if (embedder->mapping == NULL) {
        return ids <= rows ? 0
                           : refusal_write(ret_error, "it has %zu rows for %u tokens", rows, ids);
    }
    for (size_t i = 0; i < ids; i++) {
        const double row = tensor_number(embedder->mapping, i);
        if (!(row >= 0 && row < (double)rows)) {
            return refusal_write(ret_error, "the row of token %zu is not one of %zu", i, rows);
        }
    }
    return 0;
}

static int check_tensors(struct embed_static *embedder, char *ret_error)
{
    static const enum tensor_type weight_types[] = {TENSOR_F64, TENSOR_F32, TENSOR_F16,
                                                    TENSOR_BF16};
    static const enum tensor_type mapping_types[] = {TENSOR_I64, TENSOR_I32};
    embedder->rows = find_rows(&embedder->tensors);
    embedder->weights = safetensors_find(&embedder->tensors, "weights");
    embedder->mapping = safetensors_find(&embedder->tensors, "mapping");
    int r = check_rows(embedder, ret_error);
    r = r < 0 ? r
              : check_by_token(embedder, embedder->weights, weight_types,
                               ARRAY_LENGTH(weight_types), ret_error);
    r = r < 0 ? r
              : check_by_token(embedder, embedder->mapping, mapping_types,
                               ARRAY_LENGTH(mapping_types), ret_error);
    return r < 0 ? r : check_mapping(embedder, ret_error);
}

/* ---- embedding ---- */

static size_t cut_at(const char *text, size_t bytes, size_t characters_max)
{
    size_t characters = 0;
    for (size_t i = 0; i < bytes; i++) {
        characters += ((unsigned char)text[i] & 0xc0U) != 0x80U ? 1 : 0;
        if (characters > characters_max) {
            return i;
        }
    }
    return bytes;
}

static void add_token(const struct embed_static *embedder, uint32_t id, float *sums)
{
    const size_t row =
        embedder->mapping == NULL ? id : (size_t)tensor_number(embedder->mapping, id);
    const double weight = embedder->weights == NULL ? 1 : tensor_number(embedder->weights, id);
    tensor_add(embedder->rows, row * embedder->base.dim, embedder->base.dim, (float)weight, sums);
}

static int embed_one(struct embed_static *embedder, const struct text_view *text, float *ret_vector)
{
    uint32_t ids[EMBED_STATIC_TOKENS_MAX];
    size_t length = 0;
    int r = tokenizer_encode(embedder->tokenizer, text->text,
                             cut_at(text->text, text->bytes, embedder->characters_max), ids,
                             ARRAY_LENGTH(ids), &length);
    if (r < 0) {
        return r == -EMSGSIZE ? -E2BIG : r;
    }
    memset(ret_vector, 0, embedder->base.dim * sizeof(*ret_vector));
    /* The sum has the direction of the mean, and that is all that is left of it. */
    for (size_t i = 0; i < length; i++) {
        add_token(embedder, ids[i], ret_vector);
    }
    text_vector_normalize(ret_vector, embedder->base.dim);
    return 0;
}

static int static_embed(struct text_embedder *base, const struct text_view *texts, size_t length,
                        float *ret_vectors)
{
    struct embed_static *embedder = CONTAINER_OF(base, struct embed_static, base);
    int r = 0;
    for (size_t i = 0; i < length && r == 0; i++) {
        r = embed_one(embedder, &texts[i], ret_vectors + i * base->dim);
    }
    embedder->texts += r == 0 ? length : 0;
    return r;
}

static void static_read_stats(const struct text_embedder *base,
                              struct text_embedder_stats *ret_stats)
{
    const struct embed_static *embedder =
        CONTAINER_OF((struct text_embedder *)(uintptr_t)base, struct embed_static, base);
    *ret_stats = (struct text_embedder_stats){.texts = embedder->texts};
}

static void static_destroy(struct text_embedder *base)
{
    struct embed_static *embedder = CONTAINER_OF(base, struct embed_static, base);
    tokenizer_destroy(&embedder->tokenizer);
    safetensors_finish(&embedder->tensors);
    mapped_file_close(&embedder->file);
    free(embedder);
}

/* ---- opening ---- */

static const char model_name[] = "model.safetensors";
static const char tokenizer_name[] = "tokenizer.json";

/* Errors: as embed_static_create(). */
static int open_file(const char *folder, const char *name, struct mapped_file *ret_file,
                     char *ret_error)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder, name) >= sizeof(path)) {
        (void)snprintf(ret_error, TEXT_EMBEDDER_ERROR_BYTES, "the path of the model is too long");
        return -EINVAL;
    }
    int r = mapped_file_open(path, ret_file);
    if (r < 0) {
        (void)snprintf(ret_error, TEXT_EMBEDDER_ERROR_BYTES,
                       "%.150s: %s; the folder of a static model holds %s and %s", path,
                       r == -EINVAL ? "empty or no file" : strerror(-r), model_name,
                       tokenizer_name);
    }
    return r;
}

static void say_file(const char *name, const char *why, char *ret_error)
{
    (void)snprintf(ret_error, TEXT_EMBEDDER_ERROR_BYTES, "%s: %s", name, why);
}

static int read_tokenizer(const char *folder, struct embed_static *embedder, char *ret_error)
{
    struct mapped_file file;
    char why[REFUSAL_BYTES] = "";
    int r = open_file(folder, tokenizer_name, &file, ret_error);
    if (r < 0) {
        return r;
    }
    r = tokenizer_read((const char *)file.data, file.bytes, &embedder->tokenizer, why);
    if (r == -EINVAL) {
        say_file(tokenizer_name, why, ret_error);
    }
    embedder->base.version = XXH3_64bits_withSeed(file.data, file.bytes, EMBED_STATIC_VERSION);
    mapped_file_close(&file);
    return r;
}

static int read_model(const char *folder, struct embed_static *embedder, char *ret_error)
{
    char why[REFUSAL_BYTES] = "";
    int r = open_file(folder, model_name, &embedder->file, ret_error);
    if (r < 0) {
        return r;
    }
    r = safetensors_read(embedder->file.data, embedder->file.bytes, &embedder->tensors, why);
    r = r < 0 ? r : check_tensors(embedder, why);
    if (r == -EINVAL) {
        say_file(model_name, why, ret_error);
    }
    if (r == 0) {
        embedder->base.version =
            XXH3_64bits_withSeed(embedder->file.data, embedder->file.bytes, embedder->base.version);
    }
    return r;
}

/* "static:" and the folder's own name: where it lies says nothing about it. */
static void name_it(const char *folder, struct text_embedder *base)
{
    size_t end = strlen(folder);
    while (end > 1 && folder[end - 1] == '/') {
        end--;
    }
    size_t from = end;
    while (from > 0 && folder[from - 1] != '/') {
        from--;
    }
    (void)snprintf(base->id, sizeof(base->id), "static:%.*s", (int)(end - from), folder + from);
}

static void static_free(struct embed_static **embedder)
{
    if (*embedder != NULL) {
        static_destroy(&(*embedder)->base);
    }
}

int embed_static_create(const char *folder, struct text_embedder **ret_embedder,
                        char ret_error[TEXT_EMBEDDER_ERROR_BYTES])
{
    static const struct text_embedder_class class = {
        .embed = static_embed, .read_stats = static_read_stats, .destroy = static_destroy};
    CLEANUP(static_free) struct embed_static *embedder = calloc(1, sizeof(*embedder));
    if (embedder == NULL) {
        return -ENOMEM;
    }
    embedder->base.class = &class;
    name_it(folder, &embedder->base);
    int r = read_tokenizer(folder, embedder, ret_error);
    r = r < 0 ? r : read_model(folder, embedder, ret_error);
    if (r < 0) {
        return r;
    }
    embedder->base.dim = (uint32_t)embedder->rows->shape[1];
    embedder->characters_max =
        (size_t)EMBED_STATIC_TOKENS_MAX * tokenizer_median_characters(embedder->tokenizer);
    struct embed_static *created = TAKE(embedder);
    *ret_embedder = &created->base;
    return 0;
}
