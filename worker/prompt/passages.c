#include "worker/prompt/passages.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "worker/bytes.h"
#include "worker/prompt/messages.h"
#include "worker/prompt/spans.h"
#include "worker/prompt/token_count.h"

enum {
    QUESTION_WORDS_MAX = 256,
    PASSAGE_BYTES_MIN = 6, /* between the tags: less says how texts are marked, and is none */
    WORD_BYTES_MIN = 3,
    WORD_BYTES_MAX = 64,
    TEXT_BYTES_MAX = 8 << 20
};

struct passage {
    json_t *message; /* borrowed */
    struct message_text in;
    size_t from, to; /* of its text, with the tags */
    size_t order;    /* among all */
    uint64_t tokens;
    uint8_t words[QUESTION_WORDS_MAX / 8]; /* of the question, that it has */
    double worth;
    bool is_kept;
};

struct finder {
    const struct bpe *bpe;
    json_t *message; /* that is read; borrowed */
    struct passage *items;
    size_t length;
    uint64_t words[QUESTION_WORDS_MAX]; /* the question's, hashed */
    size_t words_length;
};

/* ---- where passages are ---- */

static const char *const tags[] = {"document", "passage", "source"};

/* A walk over a text. A tag that is closed nowhere behind is not looked for again. */
struct walk {
    const char *text;
    size_t bytes;
    size_t at;
    bool is_unclosed[ARRAY_LENGTH(tags)];
    bool knows_fence; /* the next, unless the walk is behind where it begins: */
    size_t fence, fence_end;
};

/* Which tag opens at `at`; as many as there are: none, as behind a backtick: it is spoken of. */
static size_t tag_at(const struct walk *walk, size_t at)
{
    const bool is_code = at > 0 && walk->text[at - 1] == '`';
    size_t i = 0;
    for (; i < ARRAY_LENGTH(tags); i++) {
        const size_t name = strlen(tags[i]);
        const char *text = walk->text + at + 1;
        if (walk->bytes - at > name + 1 && memcmp(text, tags[i], name) == 0 && !is_code &&
            (text[name] == '>' || isspace((unsigned char)text[name]))) {
            break;
        }
    }
    return i;
}

/* Behind the closing tag; 0: there is none. */
static size_t passage_end(struct walk *walk, size_t at, size_t tag)
{
    char closing[16] = "</";
    const size_t name = strlen(tags[tag]);
    memcpy(closing + 2, tags[tag], name);
    closing[2 + name] = '>';
    const char *end = walk->is_unclosed[tag]
                          ? NULL
                          : memmem(walk->text + at, walk->bytes - at, closing, name + 3);
    walk->is_unclosed[tag] = end == NULL;
    return end == NULL ? 0 : (size_t)(end - walk->text) + name + 3;
}

static bool opens_within(const struct walk *walk, size_t from, size_t to, size_t tag)
{
    const char *sign;
    while ((sign = memchr(walk->text + from, '<', to - from)) != NULL) {
        from = (size_t)(sign - walk->text);
        if (tag_at(walk, from) == tag) {
            return true;
        }
        from++;
    }
    return false;
}

/* "Between <document> and </document>", "in <document> tags: <document>…". */
static bool is_spoken_of(const struct walk *walk, size_t from, size_t to, size_t tag)
{
    const char *opened = memchr(walk->text + from, '>', to - from);
    const char *begin = opened + 1;
    const char *end = walk->text + to - strlen(tags[tag]) - 3;
    while (begin < end && isspace((unsigned char)*begin)) {
        begin++;
    }
    while (begin < end && isspace((unsigned char)end[-1])) {
        end--;
    }
    return end < begin + PASSAGE_BYTES_MIN || opens_within(walk, from + 1, to, tag);
}

/* Code between fences has no passages. False: none opens before `to`. */
static bool skip_fence(struct walk *walk, size_t to)
{
    const bool is_known = walk->knows_fence && walk->fence >= walk->at;
    if (!is_known &&
        !spans_next_fence(walk->text, walk->bytes, walk->at, &walk->fence, &walk->fence_end)) {
        walk->fence = walk->bytes;
    }
    walk->knows_fence = true;
    const bool is_in_it = walk->fence < to;
    walk->at = is_in_it ? walk->fence_end : walk->at;
    return is_in_it;
}

/* The next passage; the walk is behind it then. False: there is none. */
static bool next_passage(struct walk *walk, size_t *ret_from, size_t *ret_to)
{
    const char *sign;
    while (walk->at < walk->bytes &&
           (sign = memchr(walk->text + walk->at, '<', walk->bytes - walk->at)) != NULL) {
        *ret_from = (size_t)(sign - walk->text);
        if (skip_fence(walk, *ret_from)) {
            continue;
        }
        const size_t tag = tag_at(walk, *ret_from);
        *ret_to = tag < ARRAY_LENGTH(tags) ? passage_end(walk, *ret_from, tag) : 0;
        walk->at = *ret_to > 0 ? *ret_to : *ret_from + 1;
        if (*ret_to > 0 && !is_spoken_of(walk, *ret_from, *ret_to, tag)) {
            return true;
        }
    }
    return false;
}

static struct walk walk_over(const struct message_text *text)
{
    return (struct walk){.text = json_string_value(text->text),
                         .bytes = json_string_length(text->text)};
}

static int note_passages(void *context, const struct message_text *text)
{
    struct finder *finder = context;
    struct walk walk = walk_over(text);
    size_t from;
    size_t to;
    while (next_passage(&walk, &from, &to)) {
        if (finder->length == PASSAGES_MAX) {
            return -EMSGSIZE;
        }
        finder->items[finder->length] =
            (struct passage){.message = finder->message,
                             .in = *text,
                             .from = from,
                             .to = to,
                             .order = finder->length,
                             .tokens = token_count(finder->bpe, walk.text + from, to - from)};
        finder->length++;
    }
    return 0;
}

static int find_passages(struct finder *finder, json_t *messages)
{
    size_t i;
    json_t *message;
    int r = 0;
    json_array_foreach (messages, i, message) {
        if (r == 0 && (message_is(message, "user") || message_is_system(message))) {
            finder->message = message;
            r = message_each_text(message, note_passages, finder);
        }
    }
    return r;
}

/* ---- words ---- */

static bool is_word_byte(char c)
{
    return isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

/* The next word, in small letters where it is ASCII. 0: there is none. */
static uint64_t next_word(const char *text, size_t bytes, size_t *at)
{
    char word[WORD_BYTES_MAX];
    while (*at < bytes) {
        size_t length = 0;
        while (*at < bytes && !is_word_byte(text[*at])) {
            (*at)++;
        }
        for (; *at < bytes && is_word_byte(text[*at]); (*at)++) {
            if (length < WORD_BYTES_MAX) {
                word[length++] = (char)tolower((unsigned char)text[*at]);
            }
        }
        if (length >= WORD_BYTES_MIN) {
            return XXH3_64bits(word, length) | 1;
        }
    }
    return 0;
}

static size_t word_place(const struct finder *finder, uint64_t word)
{
    size_t i = 0;
    while (i < finder->words_length && finder->words[i] != word) {
        i++;
    }
    return i;
}

static void note_words(struct finder *finder, const char *text, size_t bytes)
{
    uint64_t word;
    for (size_t at = 0; (word = next_word(text, bytes, &at)) != 0;) {
        if (finder->words_length < QUESTION_WORDS_MAX &&
            word_place(finder, word) == finder->words_length) {
            finder->words[finder->words_length++] = word;
        }
    }
}

static int note_question(void *context, const struct message_text *text)
{
    struct walk walk = walk_over(text);
    size_t at = 0;
    size_t from;
    size_t to;
    while (next_passage(&walk, &from, &to)) {
        note_words(context, walk.text + at, from - at);
        at = to;
    }
    note_words(context, walk.text + at, walk.bytes - at);
    return 0;
}

static void read_question(struct finder *finder, json_t *messages)
{
    for (size_t i = json_array_size(messages); i-- > 0;) {
        json_t *message = json_array_get(messages, i);
        if (message_is(message, "user")) {
            (void)message_each_text(message, note_question, finder);
            return;
        }
    }
}

/* ---- worth ---- */

static bool has_word(const struct passage *passage, size_t word)
{
    return (passage->words[word / 8] & (1U << (word % 8))) != 0;
}

static void read_passage(const struct finder *finder, struct passage *passage)
{
    const char *text = json_string_value(passage->in.text);
    uint64_t word;
    for (size_t at = passage->from; (word = next_word(text, passage->to, &at)) != 0;) {
        const size_t place = word_place(finder, word);
        if (place < finder->words_length) {
            passage->words[place / 8] |= (uint8_t)(1U << (place % 8));
        }
    }
}

/* The sum over shared words of log((n + 1) / (passages with it)). False: nothing is shared. */
static bool weigh(struct finder *finder)
{
    bool has_worth = false;
    for (size_t i = 0; i < finder->length; i++) {
        read_passage(finder, &finder->items[i]);
    }
    for (size_t word = 0; word < finder->words_length; word++) {
        size_t holders = 0;
        for (size_t i = 0; i < finder->length; i++) {
            holders += has_word(&finder->items[i], word) ? 1 : 0;
        }
        for (size_t i = 0; i < finder->length && holders > 0; i++) {
            finder->items[i].worth += has_word(&finder->items[i], word)
                                          ? log((double)(finder->length + 1) / (double)holders)
                                          : 0;
        }
        has_worth = has_worth || holders > 0;
    }
    return has_worth;
}

static int by_worth(const void *left, const void *right)
{
    const struct passage *a = left;
    const struct passage *b = right;
    return a->worth > b->worth ? -1 : a->worth < b->worth ? 1 : a->order < b->order ? -1 : 1;
}

static int by_order(const void *left, const void *right)
{
    const struct passage *a = left;
    const struct passage *b = right;
    return a->order < b->order ? -1 : 1;
}

/* ---- the cut ---- */

static bool is_blank(const char *text, size_t bytes)
{
    while (bytes > 0 && isspace((unsigned char)text[bytes - 1])) {
        bytes--;
    }
    return bytes == 0;
}

static int look_between(void *context, const struct message_text *text)
{
    bool *are_all = context;
    struct walk walk = walk_over(text);
    size_t at = 0;
    size_t from;
    size_t to;
    while (next_passage(&walk, &from, &to)) {
        *are_all = *are_all && is_blank(walk.text + at, from - at);
        at = to;
    }
    *are_all = *are_all && is_blank(walk.text + at, walk.bytes - at);
    return 0;
}

/* Of one message's passages, which begin at items[first], the best; *ret_next: the next message's.
 */
static struct passage *best_of_message(const struct finder *finder, size_t first, size_t *ret_next)
{
    struct passage *best = &finder->items[first];
    size_t i = first;
    for (; i < finder->length && finder->items[i].message == best->message; i++) {
        best = finder->items[i].worth > best->worth ? &finder->items[i] : best;
    }
    *ret_next = i;
    return best;
}

/*
 * Providers refuse a message without text: where there is nothing but passages the best of them
 * stays; and the best of all others. What is worth most changes with what is left, so that of all
 * together another one might be kept the next time.
 */
static void keep_needed(struct finder *finder)
{
    struct passage *best = NULL;
    size_t next;
    for (size_t i = 0; i < finder->length; i = next) {
        struct passage *passage = best_of_message(finder, i, &next);
        bool are_all = true;
        (void)message_each_text(passage->message, look_between, &are_all);
        passage->is_kept = are_all;
        if (!are_all && (best == NULL || passage->worth > best->worth)) {
            best = passage;
        }
    }
    if (best != NULL) {
        best->is_kept = true;
    }
}

static void choose(struct finder *finder, uint64_t tokens_max)
{
    uint64_t sum = 0;
    keep_needed(finder);
    for (size_t i = 0; i < finder->length; i++) {
        sum += finder->items[i].is_kept ? finder->items[i].tokens : 0;
    }
    qsort(finder->items, finder->length, sizeof(*finder->items), by_worth);
    for (size_t i = 0; i < finder->length; i++) {
        struct passage *passage = &finder->items[i];
        if (!passage->is_kept && sum + passage->tokens <= tokens_max) {
            passage->is_kept = true;
            sum += passage->tokens;
        }
    }
    qsort(finder->items, finder->length, sizeof(*finder->items), by_order);
}

/* All passages of one text, which begin at items[first]; *ret_next: the next text's. */
static int cut_text(struct finder *finder, size_t first, size_t *ret_next, uint64_t *saved)
{
    const struct message_text in = finder->items[first].in;
    const char *text = json_string_value(in.text);
    struct bytes out = {.bytes_max = TEXT_BYTES_MAX};
    size_t at = 0;
    size_t i = first;
    int r = 0;
    for (; i < finder->length && finder->items[i].in.text == in.text; i++) {
        const struct passage *passage = &finder->items[i];
        if (!passage->is_kept) {
            r = r < 0 ? r : bytes_append(&out, text + at, passage->from - at);
            at = passage->to;
            *saved += passage->tokens;
        }
    }
    *ret_next = i;
    if (at > 0 && r == 0) {
        r = bytes_append(&out, text + at, json_string_length(in.text) - at);
        r = r < 0 ? r : message_set_text(&in, out.data, out.length);
    }
    bytes_finish(&out);
    return r;
}

static int cut(struct finder *finder, uint64_t *saved)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < finder->length;) {
        r = cut_text(finder, i, &i, saved);
    }
    return r;
}

/* A part without text is refused by some providers. */
static void drop_empty_parts(json_t *messages)
{
    size_t i;
    json_t *message;
    json_array_foreach (messages, i, message) {
        json_t *content = json_object_get(message, "content");
        for (size_t part = json_array_size(content); part-- > 0 && json_array_size(content) > 1;) {
            const json_t *text = json_object_get(json_array_get(content, part), "text");
            if (json_is_string(text) && json_string_length(text) == 0) {
                (void)json_array_remove(content, part);
            }
        }
    }
}

static uint64_t tokens_of(const struct finder *finder)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < finder->length; i++) {
        sum += finder->items[i].tokens;
    }
    return sum;
}

int passages_trim(json_t *messages, uint64_t tokens_max, const struct bpe *bpe, uint64_t *ret_saved)
{
    struct finder finder = {.bpe = bpe};
    *ret_saved = 0;
    finder.items = calloc(PASSAGES_MAX, sizeof(*finder.items));
    if (finder.items == NULL) {
        return -ENOMEM;
    }
    int r = find_passages(&finder, messages);
    if (r == 0 && tokens_of(&finder) > tokens_max) {
        read_question(&finder, messages);
        if (weigh(&finder)) {
            choose(&finder, tokens_max);
            r = cut(&finder, ret_saved);
            drop_empty_parts(messages);
        }
    }
    free(finder.items);
    return r == -EMSGSIZE ? 0 : r;
}
