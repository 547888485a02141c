/*
 * Question: how many tokens does each lever of the prompt optimisation leave out, how far is the
 * token estimate off, and how much processor time does it take?
 *
 *   bench-prompt PROMPTS.jsonl [VOCABULARY…]
 *
 * PROMPTS.jsonl has an object with "text" a line. A vocabulary is a ranks file or a tokenizer.json
 * (tests/bench/vocabulary.js writes two). The estimate was fitted on the even lines: its error is
 * told for the odd ones. The first vocabulary counts what is saved; without one the estimate does.
 *
 * The prompts are single questions. What has a history, passages or repeats is made of them, in the
 * order of the file: conversations of 24 turns (the question, and the next one's text as answer),
 * requests with 16 passages (texts of 200 bytes and more) of which one has the question's words,
 * and requests whose long text stands in an earlier turn as well.
 *
 * No model is asked. What an answer hangs on is looked for in what would be sent ("kept", of the
 * requests that were changed): of prompts alone, all words and numbers in their order; of a
 * conversation, the system's message, the last turn before the question and the question; of
 * passages, the one with the question's words, whole; of what is given twice, each word once.
 */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "worker/prompt/bpe.h"
#include "worker/prompt/messages.h"
#include "worker/prompt/optimise.h"
#include "worker/prompt/token_count.h"

enum { TURNS = 24, PASSAGES = 16, LONG_BYTES = 200, BODY_BYTES_MAX = 1 << 20, KINDS = 5 };

/* Of this process alone, so that what else runs on the machine counts little. */
static int64_t cpu_ns(void)
{
    struct timespec at;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at) < 0) {
        exit(1);
    }
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

struct texts {
    char **items;
    size_t length;
};

static struct texts read_texts(const char *path)
{
    struct texts texts = {.items = calloc(100000, sizeof(char *))};
    FILE *file = fopen(path, "re");
    char *line = NULL;
    size_t room = 0;
    if (file == NULL || texts.items == NULL) {
        (void)fprintf(stderr, "bench-prompt: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    while (getline(&line, &room, file) > 0 && texts.length < 100000) {
        json_t *object = json_loads(line, 0, NULL);
        const char *text = json_string_value(json_object_get(object, "text"));
        if (text != NULL) {
            texts.items[texts.length++] = strdup(text);
        }
        json_decref(object);
    }
    free(line);
    (void)fclose(file);
    return texts;
}

/* ---- the estimate ---- */

static int by_size(const void *left, const void *right)
{
    const double a = *(const double *)left;
    const double b = *(const double *)right;
    return a < b ? -1 : a > b;
}

static double part_of(uint64_t wrong, uint64_t right)
{
    const double difference = wrong > right ? (double)(wrong - right) : (double)(right - wrong);
    return right == 0 ? 0 : difference / (double)right;
}

static void tell_error(const char *name, const struct bpe *bpe, const struct texts *texts)
{
    double *errors = calloc(texts->length + 1, sizeof(*errors));
    uint64_t counted = 0;
    uint64_t estimated = 0;
    uint64_t by_bytes = 0;
    size_t length = 0;
    double sum = 0;
    int64_t counting_ns = 0;
    int64_t estimating_ns = 0;
    size_t bytes = 0;
    for (size_t i = 1; i < texts->length; i += 2) {
        const size_t text_bytes = strlen(texts->items[i]);
        const int64_t began_ns = cpu_ns();
        const uint64_t exact = bpe_count(bpe, texts->items[i], text_bytes);
        const int64_t counted_ns = cpu_ns();
        const uint64_t guess = token_count_estimate(texts->items[i], text_bytes);
        estimating_ns += cpu_ns() - counted_ns;
        counting_ns += counted_ns - began_ns;
        counted += exact;
        estimated += guess;
        by_bytes += (text_bytes + 3) / 4;
        bytes += text_bytes;
        errors[length] = part_of(guess, exact);
        sum += errors[length++];
    }
    qsort(errors, length, sizeof(*errors), by_size);
    printf("%-24s %8llu tokens, estimate %+.2f %% in all; a text: mean %.1f %%, 95 of 100 within "
           "%.1f %%; "
           "a token for four bytes: %+.2f %% in all\n",
           name, (unsigned long long)counted, 100.0 * ((double)estimated / (double)counted - 1),
           100.0 * sum / (double)length, 100.0 * errors[length * 95 / 100],
           100.0 * ((double)by_bytes / (double)counted - 1));
    printf("%-24s counting %.0f ns a byte, estimating %.0f ns a byte\n", "",
           (double)counting_ns / (double)bytes, (double)estimating_ns / (double)bytes);
    free(errors);
}

/* ---- the levers ---- */

static json_t *said(const char *role, const char *text)
{
    return json_pack("{s:s, s:s}", "role", role, "content", text);
}

static const char *text_at(const struct texts *texts, size_t index)
{
    return texts->items[index % texts->length];
}

static const char *long_text(const struct texts *texts, size_t *index)
{
    while (strlen(text_at(texts, *index)) < LONG_BYTES) {
        (*index)++;
    }
    return text_at(texts, (*index)++);
}

static json_t *conversation(const struct texts *texts, size_t index)
{
    json_t *messages =
        json_pack("[o]", said("system", "You are a helpful assistant. Answer in full sentences."));
    for (size_t i = 0; i < TURNS; i++) {
        (void)json_array_append_new(messages, said("user", text_at(texts, index + 2 * i)));
        (void)json_array_append_new(messages, said("assistant", text_at(texts, index + 2 * i + 1)));
    }
    (void)json_array_append_new(messages, said("user", text_at(texts, index + 2 * TURNS)));
    return messages;
}

static json_t *retrieval(const struct texts *texts, size_t index)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    size_t at = index;
    const char *first = NULL;
    for (size_t i = 0; i < PASSAGES; i++) {
        const char *passage = long_text(texts, &at);
        first = first == NULL ? passage : first;
        (void)fprintf(out, "<document index=\"%zu\">\n%s\n</document>\n", i + 1, passage);
    }
    size_t from = 40;
    while (((unsigned char)first[from] & 0xC0) == 0x80) {
        from++;
    }
    size_t to = from + 80;
    while (((unsigned char)first[to] & 0xC0) == 0x80) {
        to++;
    }
    (void)fprintf(out, "\nWhich of these has this in it: %.*s", (int)(to - from), first + from);
    (void)fclose(out);
    json_t *content = json_stringn_nocheck(text, bytes);
    free(text);
    return json_pack("[{s:s, s:o}]", "role", "user", "content", content);
}

static json_t *repetition(const struct texts *texts, size_t index)
{
    size_t at = index;
    const char *text = long_text(texts, &at);
    json_t *messages =
        json_pack("[o, o, o]", said("user", text), said("assistant", text_at(texts, index + 1)),
                  json_pack("{s:s, s:s++}", "role", "user", "content", text, "\n\n",
                            "Answer that again, in one sentence."));
    return messages;
}

static json_t *single(const struct texts *texts, size_t index)
{
    return json_pack("[o]", said("user", text_at(texts, index)));
}

static uint64_t tokens_of(const json_t *messages, const struct bpe *bpe)
{
    uint64_t sum = 0;
    size_t i;
    json_t *message;
    json_array_foreach (messages, i, message) {
        sum += message_tokens(message, bpe);
    }
    return sum;
}

/* ---- what an answer hangs on ---- */

static const char *content_of(const json_t *messages, size_t index)
{
    return json_string_value(json_object_get(json_array_get(messages, index), "content"));
}

static bool is_of_word(char c)
{
    return isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

/* The next word from `*at` on, behind which it is then; 0 bytes: there is none. */
static size_t next_word(const char **at)
{
    while (**at != '\0' && !is_of_word(**at)) {
        (*at)++;
    }
    const char *begin = *at;
    while (is_of_word(**at)) {
        (*at)++;
    }
    return (size_t)(*at - begin);
}

static bool has_same_words(const char *text, const char *other)
{
    size_t bytes;
    do {
        bytes = next_word(&text);
        if (next_word(&other) != bytes || memcmp(text - bytes, other - bytes, bytes) != 0) {
            return false;
        }
    } while (bytes > 0);
    return true;
}

static bool prompt_is_kept(const json_t *before, const json_t *after)
{
    return has_same_words(content_of(before, 0), content_of(after, 0));
}

static bool conversation_is_kept(const json_t *before, const json_t *after)
{
    const size_t length = json_array_size(before);
    const size_t left = json_array_size(after);
    bool is_kept = left > 3 && prompt_is_kept(before, after);
    for (size_t i = 1; is_kept && i <= 3; i++) {
        is_kept = has_same_words(content_of(before, length - i), content_of(after, left - i));
    }
    return is_kept;
}

static bool passage_is_kept(const json_t *before, const json_t *after)
{
    const char *text = content_of(before, 0);
    const char *end = strstr(text, "</document>");
    return memmem(content_of(after, 0), strlen(content_of(after, 0)), text, (size_t)(end - text)) !=
           NULL;
}

static bool words_are_kept(const json_t *before, const json_t *after)
{
    bool is_kept = true;
    char *left = json_dumps(after, 0);
    for (size_t i = 0; i < json_array_size(before); i++) {
        const char *at = content_of(before, i);
        for (size_t bytes; is_kept && (bytes = next_word(&at)) > 0;) {
            json_t *word = json_stringn_nocheck(at - bytes, bytes);
            char *quoted = json_dumps(word, JSON_ENCODE_ANY);
            is_kept = memmem(left, strlen(left), quoted + 1, strlen(quoted) - 2) != NULL;
            free(quoted);
            json_decref(word);
        }
    }
    free(left);
    return is_kept;
}

struct kind {
    const char *name;
    json_t *(*make)(const struct texts *texts, size_t index);
    bool (*is_kept)(const json_t *before, const json_t *after);
    struct optimise_rules rules;
    size_t step;
};

static void tell_saved(const struct kind *kind, const struct texts *texts, const struct bpe *bpe)
{
    struct bytes out = {.bytes_max = BODY_BYTES_MAX};
    uint64_t before = 0;
    uint64_t saved[LEVERS] = {0};
    size_t requests = 0;
    size_t changed = 0;
    size_t kept = 0;
    size_t bytes = 0;
    int64_t took_ns = 0;
    for (size_t i = 0; i < texts->length; i += kind->step) {
        json_t *messages = kind->make(texts, i);
        before += tokens_of(messages, bpe);
        json_t *object = json_pack("{s:o}", "messages", messages);
        char *body = json_dumps(object, JSON_COMPACT);
        struct optimised done = {.is_changed = false};
        const int64_t began_ns = cpu_ns();
        if (optimise_chat(&kind->rules, "bench", bpe, body, strlen(body), &out, &done) < 0) {
            (void)fprintf(stderr, "bench-prompt: a request could not be optimised\n");
        }
        took_ns += cpu_ns() - began_ns;
        bytes += strlen(body);
        for (size_t lever = 0; lever < LEVERS; lever++) {
            saved[lever] += done.saved_tokens[lever];
        }
        requests++;
        changed += done.is_changed ? 1 : 0;
        if (done.is_changed) {
            json_t *sent = json_loadb(out.data, out.length, 0, NULL);
            kept += kind->is_kept(messages, json_object_get(sent, "messages")) ? 1 : 0;
            json_decref(sent);
        }
        free(body);
        json_decref(object);
    }
    printf("%-34s %6zu %7zu %6zu %9llu", kind->name, requests, changed, kept,
           (unsigned long long)before);
    for (size_t lever = 0; lever < LEVERS; lever++) {
        printf(" %5.1f %%", before == 0 ? 0 : 100.0 * (double)saved[lever] / (double)before);
    }
    printf(" %6.0f us %4.0f ns\n", (double)took_ns / 1000.0 / (double)requests,
           (double)took_ns / (double)bytes);
    bytes_finish(&out);
}

int main(int argc, char **argv)
{
    static const struct kind kinds[KINDS] = {
        {"the prompts as they are, space", single, prompt_is_kept, {.space = true}, 1},
        {"conversations, history to 1000",
         conversation,
         conversation_is_kept,
         {.history_tokens_max = 1000},
         2 * TURNS},
        {"16 passages, to 600", retrieval, passage_is_kept, {.passages_tokens_max = 600}, PASSAGES},
        {"a text given twice, repeats", repetition, words_are_kept, {.repeats = true}, 7},
        {"conversations, all levers",
         conversation,
         conversation_is_kept,
         {.space = true, .repeats = true, .history_tokens_max = 1000, .passages_tokens_max = 600},
         2 * TURNS},
    };
    struct bpe *first = NULL;
    if (argc < 2) {
        (void)fprintf(stderr, "usage: bench-prompt PROMPTS.jsonl [VOCABULARY...]\n");
        return 2;
    }
    const struct texts texts = read_texts(argv[1]);
    for (int i = 2; i < argc; i++) {
        char error[REFUSAL_BYTES] = "";
        struct bpe *bpe = NULL;
        const char *name = strrchr(argv[i], '/');
        const int64_t began_ns = cpu_ns();
        if (bpe_read_file(argv[i], &bpe, error) < 0) {
            (void)fprintf(stderr, "bench-prompt: %s: %s\n", argv[i], error);
            return 1;
        }
        printf("%-24s read in %.0f ms\n", name == NULL ? argv[i] : name + 1,
               (double)(cpu_ns() - began_ns) / 1e6);
        tell_error(name == NULL ? argv[i] : name + 1, bpe, &texts);
        if (first == NULL) {
            first = bpe;
        } else {
            bpe_destroy(&bpe);
        }
    }
    printf("\n%-34s %6s %7s %6s %9s", "", "sent", "changed", "kept", "tokens");
    for (size_t lever = 0; lever < LEVERS; lever++) {
        printf(" %7.7s", lever_name((enum lever)lever));
    }
    printf(" %9s %7s\n", "a request", "a byte");
    for (size_t i = 0; i < KINDS; i++) {
        tell_saved(&kinds[i], &texts, first);
    }
    bpe_destroy(&first);
    for (size_t i = 0; i < texts.length; i++) {
        free(texts.items[i]);
    }
    free(texts.items);
    return 0;
}
