#include "worker/cache/text_normalizer.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "worker/cache/characters.h"
#include "worker/cache/charsmap.h"

enum { DECOMPOSED_MAX = 32 }; /* characters: the longest is 18 (U+FDFA) */

enum step_kind {
    STEP_BERT,
    STEP_LOWERCASE,
    STEP_STRIP_ACCENTS,
    STEP_FORM,
    STEP_CHARSMAP,
    STEP_REPLACE,
    STEP_REPLACE_BLANKS,
    STEP_STRIP,
    STEP_PREPEND,
};

struct step {
    enum step_kind kind;
    bool cleans, spaces_ideographs, strips_accents, lowers; /* STEP_BERT */
    utf8proc_option_t form;                                 /* STEP_FORM */
    struct charsmap *charsmap;
    char *pattern;      /* STEP_REPLACE */
    char *content;      /* what replaces, or is put before */
    bool is_space_only; /* STEP_REPLACE_BLANKS: runs of U+0020, not of every blank */
    size_t run_min;     /* of such a length at least … */
    size_t run_max;     /* … and at most */
    bool left, right;   /* STEP_STRIP */
};

struct text_normalizer {
    struct step steps[TEXT_NORMALIZER_STEPS_MAX];
    size_t length;
};

/* ---- reading ---- */

static bool flag_or(const json_t *object, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

static int read_copy(const json_t *object, const char *key, char **ret_copy, char *ret_error)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (text == NULL) {
        return refusal_write(ret_error, "a normalizer lacks \"%s\"", key);
    }
    *ret_copy = strdup(text);
    return *ret_copy == NULL ? -ENOMEM : 0;
}

static int read_bert(const json_t *object, struct step *step, char *ret_error)
{
    (void)ret_error;
    step->kind = STEP_BERT;
    step->cleans = flag_or(object, "clean_text", true);
    step->spaces_ideographs = flag_or(object, "handle_chinese_chars", true);
    step->lowers = flag_or(object, "lowercase", true);
    step->strips_accents = flag_or(object, "strip_accents", step->lowers);
    return 0;
}

static int read_charsmap(const json_t *object, struct step *step, char *ret_error)
{
    const char *text = json_string_value(json_object_get(object, "precompiled_charsmap"));
    step->kind = STEP_CHARSMAP;
    return text == NULL ? refusal_write(ret_error, "Precompiled lacks \"precompiled_charsmap\"")
                        : charsmap_read(text, &step->charsmap, ret_error);
}

/* The few patterns that are met in such files; a whole language of patterns is not worth it. */
static int read_pattern(const char *regex, struct step *step, char *ret_error)
{
    step->kind = STEP_REPLACE_BLANKS;
    step->run_min = 1;
    step->run_max = SIZE_MAX;
    if (strcmp(regex, " {2,}") == 0) {
        step->is_space_only = true;
        step->run_min = 2;
    } else if (strcmp(regex, "\\s") == 0) {
        step->run_max = 1;
    } else if (strcmp(regex, "\\s+") != 0) {
        return refusal_write(ret_error, "Replace: the pattern \"%.40s\" is not known", regex);
    }
    return 0;
}

static int read_replace(const json_t *object, struct step *step, char *ret_error)
{
    const json_t *pattern = json_object_get(object, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    step->kind = STEP_REPLACE;
    int r = regex != NULL ? read_pattern(regex, step, ret_error)
                          : read_copy(pattern, "String", &step->pattern, ret_error);
    r = r < 0 ? r : read_copy(object, "content", &step->content, ret_error);
    if (r == 0 && step->pattern != NULL && step->pattern[0] == '\0') {
        return refusal_write(ret_error, "Replace: the pattern is empty");
    }
    return r;
}

static int read_strip(const json_t *object, struct step *step, char *ret_error)
{
    (void)ret_error;
    step->kind = STEP_STRIP;
    step->left = flag_or(object, "strip_left", true);
    step->right = flag_or(object, "strip_right", true);
    return 0;
}

static int read_prepend(const json_t *object, struct step *step, char *ret_error)
{
    step->kind = STEP_PREPEND;
    return read_copy(object, "prepend", &step->content, ret_error);
}

static int read_simple(const char *type, struct step *step, char *ret_error)
{
    static const struct {
        const char *type;
        enum step_kind kind;
        int form;
    } simple[] = {
        {"Lowercase", STEP_LOWERCASE, 0},
        {"StripAccents", STEP_STRIP_ACCENTS, 0},
        {"NFC", STEP_FORM, UTF8PROC_COMPOSE},
        {"NFD", STEP_FORM, UTF8PROC_DECOMPOSE},
        {"NFKC", STEP_FORM, UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
        {"NFKD", STEP_FORM, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(simple); i++) {
        if (strcmp(type, simple[i].type) == 0) {
            step->kind = simple[i].kind;
            step->form = (utf8proc_option_t)(simple[i].form | UTF8PROC_STABLE);
            return 0;
        }
    }
    return refusal_write(ret_error, "the normalizer \"%.40s\" is not known", type);
}

static int read_step(const json_t *object, struct step *step, char *ret_error)
{
    static const struct {
        const char *type;
        int (*read)(const json_t *object, struct step *step, char *ret_error);
    } kinds[] = {
        {"BertNormalizer", read_bert}, {"Precompiled", read_charsmap}, {"Replace", read_replace},
        {"Strip", read_strip},         {"Prepend", read_prepend},
    };
    const char *type = json_string_value(json_object_get(object, "type"));
    if (type == NULL) {
        return refusal_write(ret_error, "a normalizer has no type");
    }
    for (size_t i = 0; i < ARRAY_LENGTH(kinds); i++) {
        if (strcmp(type, kinds[i].type) == 0) {
            return kinds[i].read(object, step, ret_error);
        }
    }
    return read_simple(type, step, ret_error);
}

static const json_t *sequence_of(const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    return type != NULL && strcmp(type, "Sequence") == 0 ? json_object_get(value, "normalizers")
                                                         : NULL;
}

/* Sequences may lie in sequences; what is open is kept in a list, the place in each beside it. */
static int read_steps(const json_t *value, struct text_normalizer *normalizer, char *ret_error)
{
    enum { DEPTH_MAX = 8 };
    struct {
        const json_t *list;
        size_t at;
    } open[DEPTH_MAX];
    size_t depth = 0;
    const json_t *next = value;
    while (next != NULL) {
        const json_t *list = sequence_of(next);
        if (list != NULL && depth < DEPTH_MAX) {
            open[depth].list = list;
            open[depth++].at = 0;
        } else if (list != NULL || normalizer->length == TEXT_NORMALIZER_STEPS_MAX) {
            return refusal_write(ret_error, "there are more normalizers than %d, or too deep ones",
                                 TEXT_NORMALIZER_STEPS_MAX);
        } else {
            /* Counted first: what a step that is refused has got by then is released with it. */
            struct step *step = &normalizer->steps[normalizer->length++];
            int r = read_step(next, step, ret_error);
            if (r < 0) {
                return r;
            }
        }
        next = NULL;
        while (depth > 0 && next == NULL) {
            next = json_array_get(open[depth - 1].list, open[depth - 1].at++);
            depth -= next == NULL ? 1 : 0;
        }
    }
    return 0;
}

int text_normalizer_read(const json_t *value, struct text_normalizer **ret_normalizer,
                         char ret_error[REFUSAL_BYTES])
{
    CLEANUP(text_normalizer_destroy)
    struct text_normalizer *normalizer = calloc(1, sizeof(*normalizer));
    if (normalizer == NULL) {
        return -ENOMEM;
    }
    if (value != NULL && !json_is_null(value)) {
        int r = read_steps(value, normalizer, ret_error);
        if (r < 0) {
            return r;
        }
    }
    *ret_normalizer = TAKE(normalizer);
    return 0;
}

void text_normalizer_destroy(struct text_normalizer **normalizer)
{
    struct text_normalizer *old = TAKE(*normalizer);
    if (old == NULL) {
        return;
    }
    for (size_t i = 0; i < old->length; i++) {
        charsmap_destroy(&old->steps[i].charsmap);
        free(old->steps[i].pattern);
        free(old->steps[i].content);
    }
    free(old);
}

/* ---- applying ---- */

static int append_lowered(const struct step *step, struct bytes *out, int32_t character)
{
    return character_append(out, step->lowers ? character_lower(character) : character);
}

/* A character in its parts, without those that only sit above or below others. */
static int append_without_accents(const struct step *step, struct bytes *out, int32_t character)
{
    utf8proc_int32_t parts[DECOMPOSED_MAX];
    int boundary = 0;
    const utf8proc_ssize_t length = utf8proc_decompose_char(
        character, parts, DECOMPOSED_MAX, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &boundary);
    if (length <= 0 || length > DECOMPOSED_MAX) {
        return append_lowered(step, out, character);
    }
    int r = 0;
    for (utf8proc_ssize_t i = 0; i < length && r == 0; i++) {
        r = character_is_nonspacing(parts[i]) ? 0 : append_lowered(step, out, parts[i]);
    }
    return r;
}

static int append_bert(const struct step *step, struct bytes *out, int32_t character)
{
    if (step->cleans &&
        (character == 0 || character == CHARACTER_REPLACEMENT || character_is_control(character))) {
        return 0;
    }
    if (step->cleans && character_is_blank(character)) {
        return bytes_append(out, " ", 1);
    }
    const bool is_apart = step->spaces_ideographs && character_is_ideograph(character);
    int r = is_apart ? bytes_append(out, " ", 1) : 0;
    if (r == 0) {
        r = step->strips_accents && character >= 0x80 ? append_without_accents(step, out, character)
                                                      : append_lowered(step, out, character);
    }
    return r < 0 || !is_apart ? r : bytes_append(out, " ", 1);
}

static int apply_form(const struct step *step, const char *text, size_t bytes, struct bytes *out)
{
    utf8proc_uint8_t *formed = NULL;
    const utf8proc_ssize_t length =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)bytes, &formed, step->form);
    if (length < 0) {
        return length == UTF8PROC_ERROR_OVERFLOW ? -EMSGSIZE : -ENOMEM;
    }
    const int r = bytes_append(out, formed, (size_t)length);
    free(formed);
    return r;
}

static int apply_replace(const struct step *step, const char *text, size_t bytes, struct bytes *out)
{
    const size_t pattern_bytes = strlen(step->pattern);
    size_t at = 0;
    for (;;) {
        const char *found = memmem(text + at, bytes - at, step->pattern, pattern_bytes);
        const size_t until = found == NULL ? bytes : (size_t)(found - text);
        int r = bytes_append(out, text + at, until - at);
        if (r < 0 || found == NULL) {
            return r;
        }
        r = bytes_append_text(out, step->content);
        if (r < 0) {
            return r;
        }
        at = until + pattern_bytes;
    }
}

static bool is_in_run(const struct step *step, int32_t character)
{
    return step->is_space_only ? character == ' ' : character_is_blank(character);
}

static int apply_replace_blanks(const struct step *step, const char *text, size_t bytes,
                                struct bytes *out)
{
    int r = 0;
    for (size_t at = 0; at < bytes && r == 0;) {
        int32_t character;
        size_t length = 0;
        size_t end = at;
        while (end < bytes && length < step->run_max) {
            const size_t next = character_read(text + end, bytes - end, &character);
            if (!is_in_run(step, character)) {
                break;
            }
            end += next;
            length++;
        }
        if (length == 0) {
            end += character_read(text + at, bytes - at, &character);
        }
        r = length >= step->run_min ? bytes_append_text(out, step->content)
                                    : bytes_append(out, text + at, end - at);
        at = end;
    }
    return r;
}

static int apply_strip(const struct step *step, const char *text, size_t bytes, struct bytes *out)
{
    size_t from = 0;
    size_t to = 0; /* after the last character that is no blank */
    bool is_begun = !step->left;
    for (size_t at = 0; at < bytes;) {
        int32_t character;
        const size_t length = character_read(text + at, bytes - at, &character);
        const bool is_blank = character_is_blank(character);
        if (!is_begun && !is_blank) {
            from = at;
            is_begun = true;
        }
        at += length;
        to = is_blank ? to : at;
    }
    if (!is_begun) {
        return 0;
    }
    to = step->right ? to : bytes;
    return to > from ? bytes_append(out, text + from, to - from) : 0;
}

static int apply_prepend(const struct step *step, const char *text, size_t bytes, struct bytes *out)
{
    const int r = bytes == 0 ? 0 : bytes_append_text(out, step->content);
    return r < 0 ? r : bytes_append(out, text, bytes);
}

static int append_one(const struct step *step, struct bytes *out, int32_t character)
{
    if (step->kind == STEP_BERT) {
        return append_bert(step, out, character);
    }
    if (step->kind == STEP_LOWERCASE) {
        return character_append(out, character_lower(character));
    }
    return character_is_mark(character) ? 0 : character_append(out, character);
}

static int apply_each(const struct step *step, const char *text, size_t bytes, struct bytes *out)
{
    int r = 0;
    for (size_t at = 0; at < bytes && r == 0;) {
        int32_t character;
        at += character_read(text + at, bytes - at, &character);
        r = append_one(step, out, character);
    }
    return r;
}

static int apply_step(const struct step *step, const char *text, size_t bytes, struct bytes *out)
{
    switch (step->kind) {
    case STEP_BERT:
    case STEP_LOWERCASE:
    case STEP_STRIP_ACCENTS:
        return apply_each(step, text, bytes, out);
    case STEP_FORM:
        return apply_form(step, text, bytes, out);
    case STEP_CHARSMAP:
        return charsmap_apply(step->charsmap, text, bytes, out);
    case STEP_REPLACE:
        return apply_replace(step, text, bytes, out);
    case STEP_REPLACE_BLANKS:
        return apply_replace_blanks(step, text, bytes, out);
    case STEP_STRIP:
        return apply_strip(step, text, bytes, out);
    case STEP_PREPEND:
        return apply_prepend(step, text, bytes, out);
    }
    return 0;
}

/* What follows may rely on UTF-8. */
static int append_valid(const char *text, size_t bytes, struct bytes *out)
{
    int r = 0;
    size_t from = 0;
    for (size_t at = 0; at < bytes && r == 0;) {
        int32_t character;
        const size_t length = character_read(text + at, bytes - at, &character);
        if (character == CHARACTER_REPLACEMENT && length == 1) {
            r = bytes_append(out, text + from, at - from);
            r = r < 0 ? r : character_append(out, CHARACTER_REPLACEMENT);
            from = at + 1;
        }
        at += length;
    }
    return r < 0 ? r : bytes_append(out, text + from, bytes - from);
}

static void swap(struct bytes *a, struct bytes *b)
{
    const struct bytes kept = *a;
    *a = *b;
    *b = kept;
}

int text_normalizer_apply(const struct text_normalizer *normalizer, const char *text, size_t bytes,
                          struct bytes *spare, struct bytes *out)
{
    bytes_clear(out);
    int r = append_valid(text, bytes, out);
    for (size_t i = 0; i < normalizer->length && r == 0 && out->length > 0; i++) {
        bytes_clear(spare);
        r = apply_step(&normalizer->steps[i], out->data, out->length, spare);
        swap(spare, out);
    }
    return r;
}
