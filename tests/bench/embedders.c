/*
 * bench-embedders: how long does a static model take for a prompt of 50 bytes?
 *
 *   bench-embedders [--quick]
 *
 * Models of the size of those that are used (30,000 tokens, 256 dimensions; WordPiece as BERT's,
 * Unigram without splitting as model2vec distils them) with words and numbers that are made here:
 * the time of a look-up does not depend on what the rows mean. Texts are of nine words, each of one
 * to three tokens, different from call to call. Ends with 1 when a median is above the bar.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/attributes.h"
#include "worker/cache/embed_static.h"

enum { TOKENS = 30000, DIM = 256, TEXTS = 1024, TEXT_BYTES = 50, ROUNDS = 15, BAR_NS = 20000 };

static const char bert[] = "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
                           "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"[UNK]\",\"vocab\":{\"[UNK]\":0";
static const char distilled[] =
    "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"BertNormalizer\"},%s"
    "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+\"},\"content\":\" \"},{\"type\":\"Strip\",\"strip_left\":false,"
    "\"strip_right\":true}]},\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"always\","
    "\"split\":false},\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"[UNK]\",0]";

static void fail(const char *what)
{
    fprintf(stderr, "bench-embedders: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* The token `number` in letters: three for the first 17,576, then four. */
static void spell(unsigned int number, char *out)
{
    const int letters = number < 17576 ? 3 : 4;
    for (int i = letters - 1; i >= 0; i--) {
        out[i] = (char)('a' + number % 26);
        number /= 26;
    }
    out[letters] = '\0';
}

static void write_tokenizer(const char *path, bool is_unigram)
{
    char replaces[8192] = "";
    FILE *out = fopen(path, "w");
    if (out == NULL) {
        fail(path);
    }
    for (char c = '!'; c <= '~'; c++) {
        if (strchr("\"\\", c) == NULL && (c < '0' || c > '9') && ((c | 32) < 'a' || (c | 32) > 'z')) {
            snprintf(replaces + strlen(replaces), sizeof(replaces) - strlen(replaces),
                     "{\"type\":\"Replace\",\"pattern\":{\"String\":\"%c\"},\"content\":\" %c \"},", c, c);
        }
    }
    if (is_unigram) {
        fprintf(out, distilled, replaces);
    } else {
        fputs(bert, out);
    }
    for (unsigned int i = 1; i < TOKENS; i++) {
        char word[8];
        spell(i / 2, word);
        const char *mark = (i % 2 == 0) == is_unigram ? (is_unigram ? "\xe2\x96\x81" : "##") : "";
        fprintf(out, is_unigram ? ",[\"%s%s\",-%.3f]" : ",\"%s%s\":%.0f", mark, word, is_unigram ? 8 + i / 3e4 : (double)i);
    }
    fputs(is_unigram ? "]}}" : "}}}", out);
    if (fclose(out) != 0) {
        fail(path);
    }
}

static void write_model(const char *path, const char *type, size_t bytes_each)
{
    char header[256];
    FILE *out = fopen(path, "w");
    if (out == NULL) {
        fail(path);
    }
    const uint64_t length = (uint64_t)snprintf(header, sizeof(header),
                                               "{\"embeddings\":{\"dtype\":\"%s\",\"shape\":[%d,%d],\"data_offsets\":[0,%zu]}}", type,
                                               TOKENS, DIM, (size_t)TOKENS * DIM * bytes_each);
    fwrite(&length, sizeof(length), 1, out);
    fputs(header, out);
    for (size_t i = 0; i < (size_t)TOKENS * DIM; i++) {
        /* 1 to 2, or −1 to −2, in each of the types; the middle bits vary. */
        const uint32_t f32 = 0x3f800000U | (uint32_t)(i * 2654435761U & 0x807fffffU);
        const uint16_t f16 = (uint16_t)(0x3c00U | (i * 40503U & 0x83ffU));
        fwrite(bytes_each == 4 ? (const void *)&f32 : &f16, bytes_each, 1, out);
    }
    if (fclose(out) != 0) {
        fail(path);
    }
}

static void make_texts(char texts[TEXTS][TEXT_BYTES + 1])
{
    uint32_t random = 12345;
    for (size_t i = 0; i < TEXTS; i++) {
        memset(texts[i], ' ', TEXT_BYTES);
        size_t at = 0;
        while (at + 9 < TEXT_BYTES) {
            char word[8];
            const int parts = 1 + (int)(random >> 16) % 2;
            for (int j = 0; j < parts; j++) {
                random = random * 1664525 + 1013904223;
                spell((random >> 8) % (TOKENS / 2), word);
                memcpy(texts[i] + at, word, strlen(word));
                at += strlen(word);
            }
            at++;
        }
        texts[i][TEXT_BYTES - 1] = '?';
        texts[i][TEXT_BYTES] = '\0';
    }
}

/* Of this thread on its core: others on the machine do not count, but for the caches they share. */
static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    const double *first = a, *second = b;
    return *first < *second ? -1 : *first > *second;
}

/* The median over rounds of the mean time of a text, in ns. */
static double measure(struct text_embedder *embedder, char texts[TEXTS][TEXT_BYTES + 1], int rounds)
{
    static float vector[DIM];
    double means[ROUNDS];
    for (int round = 0; round < rounds; round++) {
        const int64_t began = now_ns();
        for (size_t i = 0; i < TEXTS; i++) {
            const struct text_view view = {texts[i], TEXT_BYTES};
            if (text_embedder_embed(embedder, &view, 1, vector) < 0 ||
                (vector[0] == 0 && vector[1] == 0 && vector[2] == 0)) {
                fail("a text has no vector");
            }
        }
        means[round] = (double)(now_ns() - began) / TEXTS;
    }
    qsort(means, (size_t)rounds, sizeof(means[0]), compare);
    return means[rounds / 2];
}

static bool run(const char *folder, const char *type, size_t bytes_each, bool is_unigram, int rounds)
{
    static char texts[TEXTS][TEXT_BYTES + 1];
    char model[128], tokenizer[128], error[TEXT_EMBEDDER_ERROR_BYTES];
    struct text_embedder *embedder = NULL;
    snprintf(model, sizeof(model), "%s/model.safetensors", folder);
    snprintf(tokenizer, sizeof(tokenizer), "%s/tokenizer.json", folder);
    write_model(model, type, bytes_each);
    write_tokenizer(tokenizer, is_unigram);
    make_texts(texts);
    const int64_t began = now_ns();
    const int r = embed_static_create(folder, &embedder, error);
    if (r < 0) {
        fprintf(stderr, "bench-embedders: %s: %s\n", strerror(-r), error);
        exit(2);
    }
    const double open_ms = (double)(now_ns() - began) / 1e6;
    const double ns = measure(embedder, texts, rounds);
    printf("| %s | %s | %.0f | %.2f | %s |\n", is_unigram ? "Unigram, no splitting" : "WordPiece", type, open_ms, ns / 1000,
           ns <= BAR_NS ? "≤ 20 µs" : "MISSED: 20 µs");
    text_embedder_destroy(&embedder);
    unlink(model);
    unlink(tokenizer);
    return ns <= BAR_NS;
}

int main(int argc, char **argv)
{
    const bool is_quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    const int rounds = is_quick ? 1 : ROUNDS;
    char folder[] = "/tmp/tiermq-bench-XXXXXX";
    bool is_good = true;
    if (mkdtemp(folder) == NULL) {
        fail("a temporary folder");
    }
    printf("| tokens | rows | opened in ms | µs for 50 bytes | bar |\n| --- | --- | --- | --- | --- |\n");
    is_good &= run(folder, "F32", 4, false, rounds);
    is_good &= run(folder, "F16", 2, false, rounds);
    is_good &= run(folder, "F32", 4, true, rounds);
    is_good &= run(folder, "F16", 2, true, rounds);
    rmdir(folder);
    return is_good || is_quick ? 0 : 1;
}
