#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "worker/cache/embed_static.h"

static const char words[] =
    "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},\"model\":{\"type\":\"WordPiece\","
    "\"unk_token\":\"[UNK]\",\"vocab\":{\"[UNK]\":0,\"red\":1,\"blue\":2,\"sky\":3}}}";

struct folder {
    char path[32];
};

static void save(const struct folder *folder, const char *name, const void *data, size_t bytes)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder->path, name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(data, 1, bytes, file), bytes);
    fclose(file);
}

static struct folder folder_make(const char *tokenizer, const char *header, const void *data, size_t bytes)
{
    struct folder folder = {"/tmp/tiermq-static-XXXXXX"};
    cr_assert_not_null(mkdtemp(folder.path));
    uint8_t *file = calloc(1, 8 + strlen(header) + bytes);
    file[0] = (uint8_t)strlen(header);
    file[1] = (uint8_t)(strlen(header) >> 8);
    memcpy(file + 8, header, strlen(header));
    memcpy(file + 8 + strlen(header), data, bytes);
    save(&folder, "model.safetensors", file, 8 + strlen(header) + bytes);
    save(&folder, "tokenizer.json", tokenizer, strlen(tokenizer));
    free(file);
    return folder;
}

static void folder_remove(const struct folder *folder)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/model.safetensors", folder->path);
    unlink(path);
    snprintf(path, sizeof(path), "%s/tokenizer.json", folder->path);
    unlink(path);
    rmdir(folder->path);
}

static struct text_embedder *open_good(const struct folder *folder)
{
    char error[TEXT_EMBEDDER_ERROR_BYTES] = "";
    struct text_embedder *embedder = NULL;
    cr_assert_eq(embed_static_create(folder->path, &embedder, error), 0, "%s", error);
    return embedder;
}

static void expect_vector(struct text_embedder *embedder, const char *text, float x, float y)
{
    float vector[2] = {9, 9};
    const struct text_view view = {text, strlen(text)};
    cr_assert_eq(text_embedder_embed(embedder, &view, 1, vector), 0);
    cr_expect(fabsf(vector[0] - x) < 1e-5F && fabsf(vector[1] - y) < 1e-5F, "\"%s\": %f %f", text, (double)vector[0],
              (double)vector[1]);
}

static const float rows[8] = {7, 7, 1, 0, 0, 1, 3, 4};
#define TABLE "\"embeddings\":{\"dtype\":\"F32\",\"shape\":[4,2],\"data_offsets\":[0,32]}"

Test(embed_static, a_vector_is_the_mean_of_its_tokens_rows_at_length_1)
{
    const struct folder folder = folder_make(words, "{" TABLE "}", rows, sizeof(rows));
    struct text_embedder *embedder = open_good(&folder);
    cr_expect_eq(embedder->dim, 2);
    cr_expect(text_embedder_is_immediate(embedder));
    expect_vector(embedder, "red", 1, 0);
    expect_vector(embedder, "Sky!", 0.6F, 0.8F);
    expect_vector(embedder, "red blue", 0.70710678F, 0.70710678F);
    expect_vector(embedder, "red sky green", 0.70710678F, 0.70710678F); /* (1+3, 0+4): unknown is left out */
    expect_vector(embedder, "green", 0, 0);
    expect_vector(embedder, "", 0, 0);
    text_embedder_destroy(&embedder);
    folder_remove(&folder);
}

Test(embed_static, weights_and_mapping_are_by_token)
{
    struct { float rows[4]; double weights[4]; int64_t mapping[4]; } data = {
        {1, 0, 0, 1}, {1, 3, 4, 1}, {0, 0, 1, 1}};
    const struct folder folder =
        folder_make(words,
                    "{\"embeddings\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
                    "\"weights\":{\"dtype\":\"F64\",\"shape\":[4],\"data_offsets\":[16,48]},"
                    "\"mapping\":{\"dtype\":\"I64\",\"shape\":[4],\"data_offsets\":[48,80]}}",
                    &data, sizeof(data));
    struct text_embedder *embedder = open_good(&folder);
    expect_vector(embedder, "red blue", 0.6F, 0.8F);
    expect_vector(embedder, "sky", 0, 1);
    text_embedder_destroy(&embedder);
    folder_remove(&folder);
}

Test(embed_static, the_only_table_of_a_file_is_taken_whatever_its_name)
{
    const int8_t small[8] = {7, 7, 1, 0, 0, 1, 3, 4};
    const struct folder folder =
        folder_make(words, "{\"x\":{\"dtype\":\"I8\",\"shape\":[4,2],\"data_offsets\":[0,8]}}", small, sizeof(small));
    struct text_embedder *embedder = open_good(&folder);
    expect_vector(embedder, "sky", 0.6F, 0.8F);
    text_embedder_destroy(&embedder);
    folder_remove(&folder);
}

Test(embed_static, rows_that_are_no_numbers_give_no_vector)
{
    const float broken[8] = {7, 7, NAN, 0, INFINITY, 1, 3, 4};
    const struct folder folder = folder_make(words, "{" TABLE "}", broken, sizeof(broken));
    struct text_embedder *embedder = open_good(&folder);
    expect_vector(embedder, "red", 0, 0);
    expect_vector(embedder, "blue sky", 0, 0);
    text_embedder_destroy(&embedder);
    folder_remove(&folder);
}

Test(embed_static, another_content_is_another_version_and_the_name_is_the_folders)
{
    float other[8];
    memcpy(other, rows, sizeof(rows));
    other[7] = 5;
    const struct folder a = folder_make(words, "{" TABLE "}", rows, sizeof(rows));
    const struct folder same = folder_make(words, "{" TABLE "}", rows, sizeof(rows));
    const struct folder b = folder_make(words, "{" TABLE "}", other, sizeof(other));
    struct text_embedder *first = open_good(&a), *second = open_good(&same), *third = open_good(&b);
    cr_expect_eq(first->version, second->version);
    cr_expect_neq(first->version, third->version);
    char id[64];
    snprintf(id, sizeof(id), "static:%s", strrchr(a.path, '/') + 1);
    cr_expect_str_eq(first->id, id);
    text_embedder_destroy(&first);
    text_embedder_destroy(&second);
    text_embedder_destroy(&third);
    folder_remove(&a);
    folder_remove(&same);
    folder_remove(&b);
}

Test(embed_static, files_that_do_not_fit_are_refused_with_the_reason)
{
    static const struct { const char *header; size_t bytes; const char *why; } cases[] = {
        {"{}", 0, "model.safetensors: it has no tensor \"embeddings\""},
        {"{\"embeddings\":{\"dtype\":\"I64\",\"shape\":[4,1],\"data_offsets\":[0,32]}}", 32, "no tensor \"embeddings\""},
        {"{\"embeddings\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[0,32]}}", 32, "no tensor \"embeddings\""},
        {"{\"embeddings\":{\"dtype\":\"F32\",\"shape\":[2,4],\"data_offsets\":[0,32]}}", 32, "it has 2 rows for 4 tokens"},
        {"{\"embeddings\":{\"dtype\":\"I8\",\"shape\":[4,0],\"data_offsets\":[0,0]}}", 0, "from 1 to 3072"},
        {"{\"embeddings\":{\"dtype\":\"I8\",\"shape\":[4,1],\"data_offsets\":[0,4]},\"weights\":{\"dtype\":\"F32\",\"shape\":[3],"
         "\"data_offsets\":[4,16]}}", 16, "\"weights\" has no number for each of 4 tokens"},
        {"{\"embeddings\":{\"dtype\":\"I8\",\"shape\":[4,1],\"data_offsets\":[0,4]},\"mapping\":{\"dtype\":\"I32\",\"shape\":[4],"
         "\"data_offsets\":[4,20]}}", 20, "the row of token 0"},
        {"{\"a\":{\"dtype\":\"I8\",\"shape\":[4,1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"I8\",\"shape\":[4,1],"
         "\"data_offsets\":[4,8]}}", 8, "no tensor \"embeddings\""},
    };
    uint8_t data[32];
    memset(data, 0xff, sizeof(data));
    for (size_t i = 0; i < ARRAY_LENGTH(cases); i++) {
        char error[TEXT_EMBEDDER_ERROR_BYTES] = "";
        struct text_embedder *embedder = NULL;
        const struct folder folder = folder_make(words, cases[i].header, data, cases[i].bytes);
        cr_expect_eq(embed_static_create(folder.path, &embedder, error), -EINVAL, "%s", cases[i].header);
        cr_expect_not_null(strstr(error, cases[i].why), "%s: %s", cases[i].header, error);
        folder_remove(&folder);
    }
    char error[TEXT_EMBEDDER_ERROR_BYTES] = "";
    struct text_embedder *embedder = NULL;
    cr_expect_eq(embed_static_create("/nowhere", &embedder, error), -ENOENT);
    cr_expect_not_null(strstr(error, "/nowhere/tokenizer.json"), "%s", error);
    const struct folder folder = folder_make("{\"model\":{\"type\":\"BPE\"}}", "{" TABLE "}", rows, sizeof(rows));
    cr_expect_eq(embed_static_create(folder.path, &embedder, error), -EINVAL);
    cr_expect_not_null(strstr(error, "tokenizer.json: the model \"BPE\""), "%s", error);
    folder_remove(&folder);
}

Test(embed_static, too_much_is_refused)
{
    static char text[TEXT_EMBEDDER_TEXT_BYTES_MAX + 1];
    static struct text_view views[TEXT_EMBEDDER_TEXTS_MAX + 1];
    static float vectors[2 * ARRAY_LENGTH(views)];
    const struct folder folder = folder_make(words, "{" TABLE "}", rows, sizeof(rows));
    struct text_embedder *embedder = open_good(&folder);
    const struct text_view longer = {text, sizeof(text)};
    memset(text, 'a', sizeof(text));
    cr_expect_eq(text_embedder_embed(embedder, &longer, 1, vectors), -E2BIG);
    for (size_t i = 0; i < ARRAY_LENGTH(views); i++) {
        views[i] = (struct text_view){"red", 3};
    }
    cr_expect_eq(text_embedder_embed(embedder, views, ARRAY_LENGTH(views), vectors), -E2BIG);
    cr_expect_eq(text_embedder_embed(embedder, views, ARRAY_LENGTH(views) - 1, vectors), 0);
    struct text_embedder_stats stats;
    text_embedder_read_stats(embedder, &stats);
    cr_expect_eq(stats.texts, TEXT_EMBEDDER_TEXTS_MAX);
    text_embedder_destroy(&embedder);
    folder_remove(&folder);
}
