#include "worker/cache/text_splitter.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/cache/characters.h"

enum split_kind {
    SPLIT_BERT,
    SPLIT_WHITESPACE,
    SPLIT_WHITESPACE_ONLY,
    SPLIT_PUNCTUATION,
    SPLIT_DIGITS,
    SPLIT_METASPACE,
    SPLIT_BYTES,
};

enum prepend { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct split_step {
    enum split_kind kind;
    bool is_each;         /* SPLIT_DIGITS: one digit a piece */
    char replacement[5];  /* SPLIT_METASPACE: one character */
    enum prepend prepend; /* SPLIT_METASPACE, SPLIT_BYTES */
    bool splits;          /* SPLIT_METASPACE, SPLIT_BYTES: or one piece for all */
};

struct text_splitter {
    struct split_step steps[TEXT_SPLITTER_STEPS_MAX];
    size_t length;
};

/* ---- reading ---- */

static bool flag_or(const json_t *object, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

static int read_metaspace(const json_t *object, struct split_step *step, char *ret_error)
{
    const json_t *replacement = json_object_get(object, "replacement");
    const char *text = replacement == NULL ? "▁" : json_string_value(replacement);
    const char *scheme = json_string_value(json_object_get(object, "prepend_scheme"));
    int32_t character;
    if (text == NULL || text[0] == '\0' || strlen(text) >= sizeof(step->replacement) ||
        character_read(text, strlen(text), &character) != strlen(text)) {
        return refusal_write(ret_error, "Metaspace: the replacement is not one character");
    }
    memcpy(step->replacement, text, strlen(text) + 1);
    step->splits = flag_or(object, "split", true);
    /* Older files say it with a flag. */
    step->prepend = flag_or(object, "add_prefix_space", true) ? PREPEND_ALWAYS : PREPEND_NEVER;
    if (scheme != NULL) {
        step->prepend = strcmp(scheme, "never") == 0   ? PREPEND_NEVER
                        : strcmp(scheme, "first") == 0 ? PREPEND_FIRST
                                                       : PREPEND_ALWAYS;
    }
    return 0;
}

static int read_options(const json_t *object, struct split_step *step, char *ret_error)
{
    const char *behaviour = json_string_value(json_object_get(object, "behavior"));
    switch (step->kind) {
    case SPLIT_METASPACE:
        return read_metaspace(object, step, ret_error);
    case SPLIT_PUNCTUATION:
        return behaviour == NULL || strcmp(behaviour, "Isolated") == 0
                   ? 0
                   : refusal_write(ret_error, "Punctuation: the behavior \"%.40s\" is not known",
                                   behaviour);
    case SPLIT_DIGITS:
        step->is_each = flag_or(object, "individual_digits", false);
        return 0;
    case SPLIT_BYTES:
        step->prepend = flag_or(object, "add_prefix_space", true) ? PREPEND_ALWAYS : PREPEND_NEVER;
        step->splits = flag_or(object, "use_regex", true);
        return 0;
    case SPLIT_BERT:
    case SPLIT_WHITESPACE:
    case SPLIT_WHITESPACE_ONLY:
        return 0;
    }
    return 0;
}

static int read_step(const json_t *object, struct split_step *step, char *ret_error)
{
    static const struct {
        const char *type;
        enum split_kind kind;
    } kinds[] = {
        {"BertPreTokenizer", SPLIT_BERT},
        {"Whitespace", SPLIT_WHITESPACE},
        {"WhitespaceSplit", SPLIT_WHITESPACE_ONLY},
        {"Punctuation", SPLIT_PUNCTUATION},
        {"Digits", SPLIT_DIGITS},
        {"Metaspace", SPLIT_METASPACE},
        {"ByteLevel", SPLIT_BYTES},
    };
    const char *type = json_string_value(json_object_get(object, "type"));
    for (size_t i = 0; type != NULL && i < ARRAY_LENGTH(kinds); i++) {
        if (strcmp(type, kinds[i].type) == 0) {
            step->kind = kinds[i].kind;
            return read_options(object, step, ret_error);
        }
    }
    return refusal_write(ret_error, "the pre-tokenizer \"%.40s\" is not known",
                         type == NULL ? "" : type);
}

int text_splitter_read(const json_t *value, struct text_splitter **ret_splitter,
                       char ret_error[REFUSAL_BYTES])
{
    CLEANUP(text_splitter_destroy) struct text_splitter *splitter = calloc(1, sizeof(*splitter));
    if (splitter == NULL) {
        return -ENOMEM;
    }
    const char *type = json_string_value(json_object_get(value, "type"));
    const bool is_sequence = type != NULL && strcmp(type, "Sequence") == 0;
    const json_t *list = is_sequence ? json_object_get(value, "pretokenizers") : NULL;
    const bool is_none = value == NULL || json_is_null(value);
    const size_t length = is_none ? 0 : is_sequence ? json_array_size(list) : 1;
    if (length > TEXT_SPLITTER_STEPS_MAX) {
        return refusal_write(ret_error, "there are more pre-tokenizers than %d",
                             TEXT_SPLITTER_STEPS_MAX);
    }
    for (size_t i = 0; i < length; i++) {
        int r = read_step(is_sequence ? json_array_get(list, i) : value, &splitter->steps[i],
                          ret_error);
        if (r < 0) {
            return r;
        }
    }
    splitter->length = length;
    *ret_splitter = TAKE(splitter);
    return 0;
}

void text_splitter_destroy(struct text_splitter **splitter)
{
    free(TAKE(*splitter));
}

/* ---- pieces ---- */

void pieces_finish(struct pieces *pieces)
{
    bytes_finish(&pieces->text);
    free(pieces->items);
    *pieces = (struct pieces){.text = {.bytes_max = pieces->text.bytes_max}};
}

static void pieces_clear(struct pieces *pieces)
{
    bytes_clear(&pieces->text);
    pieces->length = 0;
}

/* What was appended to the text since `from` becomes a piece, unless it is nothing. */
static int pieces_close(struct pieces *pieces, size_t from)
{
    if (pieces->text.length == from) {
        return 0;
    }
    if (pieces->length == pieces->capacity) {
        const size_t capacity = pieces->capacity == 0 ? 64 : pieces->capacity * 2;
        struct piece *items = realloc(pieces->items, capacity * sizeof(*items));
        if (items == NULL) {
            return -ENOMEM;
        }
        pieces->items = items;
        pieces->capacity = capacity;
    }
    pieces->items[pieces->length++] = (struct piece){from, pieces->text.length};
    return 0;
}

static int pieces_add(struct pieces *pieces, const char *text, size_t bytes)
{
    const size_t from = pieces->text.length;
    const int r = bytes_append(&pieces->text, text, bytes);
    return r < 0 ? r : pieces_close(pieces, from);
}

/* ---- splitting by kinds of characters ---- */

/*
 * The class of a character: neighbours of one class stay together, CLASS_ALONE is a piece for
 * itself, CLASS_GAP is left out.
 */
enum character_class { CLASS_GAP, CLASS_ALONE, CLASS_WORD, CLASS_OTHER };

static enum character_class class_of(const struct split_step *step, int32_t character)
{
    switch (step->kind) {
    case SPLIT_BERT:
        return character_is_blank(character)         ? CLASS_GAP
               : character_is_punctuation(character) ? CLASS_ALONE
                                                     : CLASS_WORD;
    case SPLIT_WHITESPACE:
        return character_is_blank(character)  ? CLASS_GAP
               : character_is_word(character) ? CLASS_WORD
                                              : CLASS_OTHER;
    case SPLIT_WHITESPACE_ONLY:
        return character_is_blank(character) ? CLASS_GAP : CLASS_WORD;
    case SPLIT_PUNCTUATION:
        return character_is_punctuation(character) ? CLASS_ALONE : CLASS_WORD;
    case SPLIT_DIGITS:
        return !character_is_number(character) ? CLASS_WORD
               : step->is_each                 ? CLASS_ALONE
                                               : CLASS_OTHER;
    case SPLIT_METASPACE:
    case SPLIT_BYTES:
        return CLASS_WORD;
    }
    return CLASS_WORD;
}

static int split_by_class(const struct split_step *step, const char *text, size_t bytes,
                          struct pieces *out)
{
    int r = 0;
    size_t from = 0;
    enum character_class open = CLASS_GAP;
    for (size_t at = 0; at < bytes && r == 0;) {
        int32_t character;
        const size_t length = character_read(text + at, bytes - at, &character);
        const enum character_class class = class_of(step, character);
        if (class != open || class == CLASS_ALONE) {
            r = open == CLASS_GAP ? 0 : pieces_add(out, text + from, at - from);
            from = at;
            open = class;
        }
        at += length;
    }
    return r < 0 || open == CLASS_GAP ? r : pieces_add(out, text + from, bytes - from);
}

/* ---- Metaspace ---- */

static int split_metaspace(const struct split_step *step, const char *text, size_t bytes,
                           bool is_first, struct pieces *out)
{
    const size_t mark = strlen(step->replacement);
    const bool is_marked =
        text[0] == ' ' || (bytes >= mark && memcmp(text, step->replacement, mark) == 0);
    const bool is_due =
        step->prepend == PREPEND_ALWAYS || (step->prepend == PREPEND_FIRST && is_first);
    size_t from = out->text.length;
    int r = is_due && !is_marked ? bytes_append(&out->text, step->replacement, mark) : 0;
    for (size_t at = 0; at < bytes && r == 0;) {
        const bool is_mark = text[at] == ' ' || (bytes - at >= mark &&
                                                 memcmp(text + at, step->replacement, mark) == 0);
        if (is_mark && step->splits) {
            r = pieces_close(out, from);
            from = out->text.length;
        }
        if (r == 0 && is_mark) {
            r = bytes_append(&out->text, step->replacement, mark);
            at += text[at] == ' ' ? 1 : mark;
        } else if (r == 0) {
            r = bytes_append(&out->text, text + at, 1);
            at++;
        }
    }
    return r < 0 ? r : pieces_close(out, from);
}

/* ---- ByteLevel ---- */

/*
 * Each byte as a character that can be seen: those of Latin-1 that can be stand for themselves, the
 * others are U+0100 and following, in order. Source: GPT-2's bytes_to_unicode().
 */
static int append_byte(struct bytes *out, unsigned char byte)
{
    if ((byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae) {
        return character_append(out, byte);
    }
    const int32_t hidden = byte <= 0x20   ? byte
                           : byte <= 0xa0 ? 0x21 + byte - 0x7f
                                          : 0x43; /* 0xad */
    return character_append(out, 0x100 + hidden);
}

static int add_bytes(struct pieces *out, const char *text, size_t bytes)
{
    const size_t from = out->text.length;
    int r = 0;
    for (size_t i = 0; i < bytes && r == 0; i++) {
        r = append_byte(&out->text, (unsigned char)text[i]);
    }
    return r < 0 ? r : pieces_close(out, from);
}

/* 's 't 're 've 'm 'll 'd: its bytes, 0 when there is none. */
static size_t contraction(const char *text, size_t bytes)
{
    static const char *const endings[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < ARRAY_LENGTH(endings); i++) {
        const size_t length = strlen(endings[i]);
        if (bytes >= length && memcmp(text, endings[i], length) == 0) {
            return length;
        }
    }
    return 0;
}

enum gpt_class { GPT_BLANK, GPT_LETTER, GPT_NUMBER, GPT_OTHER };

static enum gpt_class gpt_class_of(int32_t character)
{
    return character_is_blank(character)    ? GPT_BLANK
           : character_is_letter(character) ? GPT_LETTER
           : character_is_number(character) ? GPT_NUMBER
                                            : GPT_OTHER;
}

/* The run of one class at `at`: where it ends, and where its last character begins. */
static size_t run_end(const char *text, size_t bytes, size_t at, enum gpt_class *ret_class,
                      size_t *ret_last)
{
    int32_t character;
    size_t end = at + character_read(text + at, bytes - at, &character);
    *ret_class = gpt_class_of(character);
    *ret_last = at;
    while (end < bytes) {
        const size_t length = character_read(text + end, bytes - end, &character);
        if (gpt_class_of(character) != *ret_class) {
            break;
        }
        *ret_last = end;
        end += length;
    }
    return end;
}

/*
 * The next match of GPT-2's pattern:
 * 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 */
static size_t next_match(const char *text, size_t bytes, size_t at)
{
    enum gpt_class class;
    size_t last;
    const size_t short_end = contraction(text + at, bytes - at);
    if (short_end > 0) {
        return at + short_end;
    }
    size_t end = run_end(text, bytes, at, &class, &last);
    if (class != GPT_BLANK || end == bytes) {
        return end;
    }
    if (last > at) {
        return last; /* the last blank before a word belongs to the word, if it is a space */
    }
    return text[at] == ' ' ? run_end(text, bytes, end, &class, &last) : end;
}

static int split_bytes(const struct split_step *step, const char *text, size_t bytes,
                       struct pieces *out)
{
    int r = 0;
    struct bytes spaced = {.bytes_max = bytes + 1};
    if (step->prepend == PREPEND_ALWAYS && text[0] != ' ') {
        r = bytes_append(&spaced, " ", 1);
        r = r < 0 ? r : bytes_append(&spaced, text, bytes);
        text = spaced.data;
        bytes = spaced.length;
    }
    for (size_t at = 0; at < bytes && r == 0;) {
        const size_t end = step->splits ? next_match(text, bytes, at) : bytes;
        r = add_bytes(out, text + at, end - at);
        at = end;
    }
    bytes_finish(&spaced);
    return r;
}

/* ---- all of it ---- */

static int split_one(const struct split_step *step, const char *text, size_t bytes, bool is_first,
                     struct pieces *out)
{
    switch (step->kind) {
    case SPLIT_METASPACE:
        return split_metaspace(step, text, bytes, is_first, out);
    case SPLIT_BYTES:
        return split_bytes(step, text, bytes, out);
    case SPLIT_BERT:
    case SPLIT_WHITESPACE:
    case SPLIT_WHITESPACE_ONLY:
    case SPLIT_PUNCTUATION:
    case SPLIT_DIGITS:
        return split_by_class(step, text, bytes, out);
    }
    return 0;
}

static void swap(struct pieces *a, struct pieces *b)
{
    const struct pieces kept = *a;
    *a = *b;
    *b = kept;
}

int text_splitter_split(const struct text_splitter *splitter, const char *text, size_t bytes,
                        bool is_first, struct pieces *spare, struct pieces *out)
{
    pieces_clear(out);
    int r = bytes == 0 ? 0 : pieces_add(out, text, bytes);
    for (size_t i = 0; i < splitter->length && r == 0; i++) {
        pieces_clear(spare);
        for (size_t j = 0; j < out->length && r == 0; j++) {
            const struct piece *piece = &out->items[j];
            const bool is_origin = is_first && piece->from == 0 && j == 0;
            r = split_one(&splitter->steps[i], out->text.data + piece->from,
                          piece->to - piece->from, is_origin, spare);
        }
        swap(spare, out);
    }
    return r;
}
