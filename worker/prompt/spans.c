/*
 * Two passes in one: lines first, in blocks between blank lines, since whether a line is code shows
 * in its neighbours; then, within the blocks that are prose, what stands inside a line. A span that
 * began in a block may end behind it (a brace, a quotation): the block's rest is skipped.
 */
#include "worker/prompt/spans.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { QUOTES = 7 };

struct finder {
    const char *text;
    size_t bytes;
    struct spans *spans;
    int error;
    size_t tag_stop;             /* the first '>' or line's end that no tag begins behind */
    size_t paragraph;            /* where the one ends that is looked into */
    size_t last_closing[QUOTES]; /* the last mark in it that closes such a quotation; 0: none */
    bool is_known[QUOTES];       /* … is set */
    size_t next_closing[QUOTES]; /* the first such mark that no quotation begins behind */
    size_t line_stop;            /* the first line's end that no `code` begins behind */
};

void spans_finish(struct spans *spans)
{
    free(spans->items);
    *spans = (struct spans){.items = NULL};
}

/* A neighbour of the same kind is made longer. */
static void add(struct finder *finder, size_t from, size_t to, enum span_kind kind)
{
    struct spans *spans = finder->spans;
    struct span *last = spans->length > 0 ? &spans->items[spans->length - 1] : NULL;
    if (from >= to || finder->error < 0) {
        return;
    }
    if (last != NULL && last->kind == kind && last->to >= from) {
        last->to = to > last->to ? to : last->to;
        return;
    }
    if (spans->length == spans->capacity) {
        const size_t capacity = spans->capacity == 0 ? 32 : 2 * spans->capacity;
        struct span *grown = realloc(spans->items, capacity * sizeof(*grown));
        if (grown == NULL) {
            finder->error = -ENOMEM;
            return;
        }
        spans->items = grown;
        spans->capacity = capacity;
    }
    assert(spans->items != NULL); /* there is room */
    spans->items[spans->length++] = (struct span){.from = from, .to = to, .kind = kind};
}

/* ---- lines ---- */

static size_t line_end(const struct finder *finder, size_t at)
{
    const char *end = memchr(finder->text + at, '\n', finder->bytes - at);
    return end == NULL ? finder->bytes : (size_t)(end - finder->text);
}

static bool is_blank_line(const struct finder *finder, size_t from, size_t to)
{
    while (from < to && isspace((unsigned char)finder->text[from])) {
        from++;
    }
    return from == to;
}

static bool begins_with(const char *text, size_t bytes, const char *beginning)
{
    const size_t length = strlen(beginning);
    return bytes >= length && memcmp(text, beginning, length) == 0;
}

static bool ends_with(const char *text, size_t bytes, const char *ending)
{
    const size_t length = strlen(ending);
    return bytes >= length && memcmp(text + bytes - length, ending, length) == 0;
}

static bool has_any(const char *text, size_t bytes, const char *const *words, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (memmem(text, bytes, words[i], strlen(words[i])) != NULL) {
            return true;
        }
    }
    return false;
}

/* One sign over and over: a title's underline, no code. */
static bool is_drawn(const char *line, size_t bytes)
{
    size_t at = 0;
    while (at < bytes && line[at] == line[0] && ispunct((unsigned char)line[0])) {
        at++;
    }
    return bytes > 0 && at == bytes;
}

static bool looks_like_code(const char *line, size_t bytes)
{
    static const char *const beginnings[] = {
        "    ",      "\t",      "def ",    "class ",  "import ", "#include", "#define",
        "function ", "var ",    "let ",    "const ",  "public ", "private ", "return ",
        "if (",      "for (",   "while (", "SELECT ", "select ", "INSERT ",  "UPDATE ",
        "CREATE ",   "DELETE ", "$ ",      ">>> ",    "sudo ",   "@",        "--",
        "//",        "/*",      "#!",      "<?",      "<!",      "> ",       "% "};
    static const char *const endings[] = {"{", "}", ";", "):", "\\", "(", "[", "*/"};
    static const char *const signs[] = {"==", "!=", "=>",  "->", "::",  "&&", "||", " = ",
                                        "+=", ":=", "();", "[]", " | ", "${", "$(", "<-"};
    while (bytes > 0 && isspace((unsigned char)line[bytes - 1])) {
        bytes--;
    }
    if (is_drawn(line, bytes)) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(beginnings); i++) {
        if (begins_with(line, bytes, beginnings[i])) {
            return true;
        }
    }
    for (size_t i = 0; i < ARRAY_LENGTH(endings); i++) {
        if (ends_with(line, bytes, endings[i])) {
            return true;
        }
    }
    return has_any(line, bytes, signs, ARRAY_LENGTH(signs));
}

/* Runs of blanks that no sentence ends before: what columns are made of. A tab counts as two. */
static size_t gaps_of(const char *line, size_t bytes)
{
    size_t gaps = 0;
    size_t at = 0;
    while (bytes > 0 && isspace((unsigned char)line[bytes - 1])) {
        bytes--;
    }
    while (at < bytes && isspace((unsigned char)line[at])) {
        at++;
    }
    for (; at < bytes; at++) {
        const bool is_gap = line[at] == ' ' && line[at + 1] == ' ' && line[at - 1] != ' ' &&
                            strchr(".!?:,;", line[at - 1]) == NULL;
        gaps += line[at] == '\t' ? 2 : is_gap ? 1 : 0;
    }
    return gaps;
}

static bool is_table_line(const char *line, size_t bytes)
{
    return bytes > 0 && (line[0] == '|' || line[0] == '+');
}

/* ``` or ~~~ after up to three blanks: how many signs; 0: no fence. */
static size_t fence_of(const struct finder *finder, size_t from, size_t to, char *ret_sign)
{
    size_t at = from;
    while (at < to && at < from + 3 && finder->text[at] == ' ') {
        at++;
    }
    const char sign = at < to ? finder->text[at] : '\0';
    size_t signs = 0;
    while (at + signs < to && finder->text[at + signs] == sign) {
        signs++;
    }
    *ret_sign = sign;
    return (sign == '`' || sign == '~') && signs >= 3 ? signs : 0;
}

/* From the line of a fence to behind the one that closes it; all that follows, if none does. */
static size_t fence_end(const struct finder *finder, size_t from, char sign, size_t signs)
{
    size_t at = line_end(finder, from);
    while (at < finder->bytes) {
        const size_t begin = at + 1;
        char other;
        at = begin <= finder->bytes ? line_end(finder, begin) : finder->bytes;
        if (begin <= finder->bytes && fence_of(finder, begin, at, &other) >= signs &&
            other == sign) {
            return at;
        }
    }
    return finder->bytes;
}

/* ---- inside a line ---- */

/* Behind the bracket that closes the one at `at`; all that follows, if none does. */
static size_t bracket_end(const struct finder *finder, size_t at)
{
    size_t depth = 0;
    bool is_quoted = false;
    for (; at < finder->bytes; at++) {
        const char c = finder->text[at];
        if (is_quoted) {
            at += c == '\\' ? 1 : 0;
            is_quoted = c != '"' && c != '\n';
        } else if (c == '"') {
            is_quoted = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if ((c == '}' || c == ']') && --depth == 0) {
            return at + 1;
        }
    }
    return finder->bytes;
}

static const struct quote {
    const char *opening, *closing;
    bool is_single; /* the closing mark may be an apostrophe */
} quotes[QUOTES] = {
    {"\"", "\"", false},
    {"\xE2\x80\x9C", "\xE2\x80\x9D", false}, /* “ ” */
    {"\xE2\x80\x9E", "\xE2\x80\x9C", false}, /* „ “ */
    {"\xC2\xAB", "\xC2\xBB", false},         /* « » */
    {"\xE2\x80\x98", "\xE2\x80\x99", true},  /* ‘ ’ */
    {"'", "'", true},
    {"\xE3\x80\x8C", "\xE3\x80\x8D", false}, /* 「 」 */
};

/* Behind the mark at `at`, if it closes a quotation; else 0. */
static size_t closing_end(const struct finder *finder, size_t at, const struct quote *quote)
{
    const size_t end = at + strlen(quote->closing);
    const bool closes =
        begins_with(finder->text + at, finder->bytes - at, quote->closing) &&
        (!quote->is_single || end == finder->bytes || !isalnum((unsigned char)finder->text[end]));
    return closes ? end : 0;
}

/* 0: none is near. Looked for once, since what is asked about comes ever further on. */
static size_t near_quote_end(struct finder *finder, size_t from, size_t kind)
{
    size_t *next = &finder->next_closing[kind];
    if (*next < from) {
        *next = from;
        while (*next < finder->bytes && closing_end(finder, *next, &quotes[kind]) == 0) {
            (*next)++;
        }
    }
    const size_t end = *next < finder->bytes ? closing_end(finder, *next, &quotes[kind]) : 0;
    return end <= from + SPANS_QUOTE_BYTES_MAX ? end : 0;
}

/*
 * Where the paragraph's last mark ends that may close it: which of several does is in doubt over so
 * many bytes, where each may open another one, or mean inches. Looked for once in a paragraph.
 */
static size_t far_quote_end(struct finder *finder, size_t begin, size_t kind)
{
    if (!finder->is_known[kind]) {
        size_t end = 0;
        for (size_t at = finder->paragraph; at-- > begin && end == 0;) {
            end = closing_end(finder, at, &quotes[kind]);
        }
        finder->last_closing[kind] = end;
        finder->is_known[kind] = true;
    }
    return finder->last_closing[kind];
}

/*
 * Behind the quotation; 0: it is none. What nothing closes goes on: marks that only open, in the
 * next paragraph (which begins with one as well), others to the line's end.
 */
static size_t quote_end(struct finder *finder, size_t at, size_t kind)
{
    const struct quote *quote = &quotes[kind];
    const size_t from = at + strlen(quote->opening);
    const size_t near = near_quote_end(finder, from, kind);
    const size_t far = near > 0 ? 0 : far_quote_end(finder, from, kind);
    if (near > 0 || far > from) {
        return near > 0 ? near : far;
    }
    return quote->is_single                              ? 0
           : strcmp(quote->opening, quote->closing) != 0 ? finder->paragraph
                                                         : line_end(finder, at);
}

/* No quotation begins with it: behind a letter an apostrophe, behind a digit inches. */
static bool is_of_word_before(const struct finder *finder, size_t at, size_t kind)
{
    const unsigned char before = at == 0 ? ' ' : (unsigned char)finder->text[at - 1];
    const unsigned char behind = at + 1 < finder->bytes ? (unsigned char)finder->text[at + 1] : ' ';
    return quotes[kind].is_single ? isalnum(before)
                                  : finder->text[at] == '"' && isdigit(before) && !isalnum(behind);
}

static size_t find_quote(struct finder *finder, size_t at)
{
    for (size_t i = 0; i < QUOTES; i++) {
        if (begins_with(finder->text + at, finder->bytes - at, quotes[i].opening)) {
            return is_of_word_before(finder, at, i) ? 0 : quote_end(finder, at, i);
        }
    }
    return 0;
}

/* `code`, ``code``: behind the same number of backticks; the line's end, if there is none. */
static size_t backtick_end(struct finder *finder, size_t at)
{
    size_t signs = 0;
    while (at + signs < finder->bytes && finder->text[at + signs] == '`') {
        signs++;
    }
    if (finder->line_stop <= at) {
        finder->line_stop = line_end(finder, at);
    }
    const size_t end = finder->line_stop;
    size_t run = 0;
    for (size_t i = at + signs; i < end; i++) {
        run = finder->text[i] == '`' ? run + 1 : 0;
        if (run == signs && (i + 1 == end || finder->text[i + 1] != '`')) {
            return i + 1;
        }
    }
    return end;
}

static bool is_glued(char c)
{
    return isalnum((unsigned char)c) || (unsigned char)c >= 0x80 ||
           strchr("._,:/%+-*^=$#&?~@'", c) != NULL;
}

/* A number with what is glued to it, and the groups of digits that follow it. */
static size_t number_end(const struct finder *finder, size_t at)
{
    for (;;) {
        while (at < finder->bytes && finder->text[at] != '\0' && is_glued(finder->text[at])) {
            at++;
        }
        size_t next = at;
        while (next < finder->bytes && (finder->text[next] == ' ' || finder->text[next] == '\t')) {
            next++;
        }
        if (next == at || next == finder->bytes || !isdigit((unsigned char)finder->text[next])) {
            return at;
        }
        at = next;
    }
}

static size_t word_end(const struct finder *finder, size_t at)
{
    while (at < finder->bytes && !isspace((unsigned char)finder->text[at])) {
        at++;
    }
    return at;
}

/* <tag …> on one line; 0: no tag, or none that ends. */
static size_t tag_end(struct finder *finder, size_t at)
{
    const char next = at + 1 < finder->bytes ? finder->text[at + 1] : '\0';
    if (!isalpha((unsigned char)next) && next != '/') {
        return 0;
    }
    if (finder->tag_stop < at + 2) {
        finder->tag_stop = at + 2;
        while (finder->tag_stop < finder->bytes && finder->text[finder->tag_stop] != '>' &&
               finder->text[finder->tag_stop] != '\n') {
            finder->tag_stop++;
        }
    }
    const bool ends = finder->tag_stop < finder->bytes && finder->text[finder->tag_stop] == '>';
    return ends ? finder->tag_stop + 1 : 0;
}

static bool begins_address(const struct finder *finder, size_t at)
{
    const char *text = finder->text + at;
    const size_t bytes = finder->bytes - at;
    const bool is_first = at == 0 || !isalnum((unsigned char)finder->text[at - 1]);
    return is_first &&
           (begins_with(text, bytes, "http://") || begins_with(text, bytes, "https://") ||
            begins_with(text, bytes, "www.") || begins_with(text, bytes, "mailto:"));
}

/* Where the word begins that a digit is part of. */
static size_t word_begin(const struct finder *finder, size_t at, size_t from)
{
    while (at > from && finder->text[at - 1] != '\0' && is_glued(finder->text[at - 1])) {
        at--;
    }
    return at;
}

/* Behind the span that begins at `at`, 0 when none does. */
static size_t span_at(struct finder *finder, size_t at, enum span_kind *ret_kind)
{
    const char c = finder->text[at];
    *ret_kind = SPAN_DATA;
    if (c == '{' || c == '[') {
        return bracket_end(finder, at);
    }
    *ret_kind = SPAN_CODE;
    if (c == '`') {
        return backtick_end(finder, at);
    }
    *ret_kind = SPAN_TAG;
    if (c == '<') {
        return tag_end(finder, at);
    }
    *ret_kind = SPAN_ADDRESS;
    if (begins_address(finder, at)) {
        return word_end(finder, at);
    }
    *ret_kind = SPAN_NUMBER;
    if (isdigit((unsigned char)c)) {
        return number_end(finder, at);
    }
    *ret_kind = SPAN_QUOTE;
    return c == '"' || c == '\'' || (unsigned char)c >= 0x80 ? find_quote(finder, at) : 0;
}

/* A long quotation may be none, and what code or data is in it is that. */
static bool may_hold_data(const struct finder *finder, size_t from, size_t to)
{
    const char *text = finder->text + from;
    const size_t bytes = to - from;
    return bytes > SPANS_QUOTE_BYTES_MAX &&
           (memchr(text, '{', bytes) != NULL || memchr(text, '[', bytes) != NULL ||
            memchr(text, '`', bytes) != NULL);
}

/* Spans that begin in [from, to); where the last one ends. */
static size_t find_inside(struct finder *finder, size_t from, size_t to)
{
    size_t at = from;
    size_t free_from = from; /* behind the last span */
    finder->paragraph = to;
    memset(finder->is_known, 0, sizeof(finder->is_known));
    while (at < to) {
        enum span_kind kind;
        const size_t end = span_at(finder, at, &kind);
        if (end <= at) {
            at++;
            continue;
        }
        kind = kind == SPAN_QUOTE && may_hold_data(finder, at, end) ? SPAN_DATA : kind;
        add(finder, kind == SPAN_NUMBER ? word_begin(finder, at, free_from) : at, end, kind);
        at = free_from = end;
    }
    return at;
}

/* ---- blocks ---- */

/* Behind the block's last line; *ret_is_code: all of it is to stay. */
static size_t block_end(const struct finder *finder, size_t from, bool *ret_is_code)
{
    size_t gaps = 0;
    size_t at = from;
    char sign;
    *ret_is_code = false;
    while (at < finder->bytes) {
        const size_t end = line_end(finder, at);
        const char *line = finder->text + at;
        if (is_blank_line(finder, at, end) || (at > from && fence_of(finder, at, end, &sign) > 0)) {
            break;
        }
        gaps += gaps_of(line, end - at);
        *ret_is_code = *ret_is_code || looks_like_code(line, end - at) ||
                       is_table_line(line, end - at) || gaps >= 2;
        at = end < finder->bytes ? end + 1 : end;
    }
    return at;
}

static size_t skip_blank_lines(const struct finder *finder, size_t at)
{
    while (at < finder->bytes) {
        const size_t end = line_end(finder, at);
        if (!is_blank_line(finder, at, end)) {
            break;
        }
        at = end < finder->bytes ? end + 1 : end;
    }
    return at;
}

int spans_find(const char *text, size_t bytes, struct spans *spans)
{
    struct finder finder = {.text = text, .bytes = bytes, .spans = spans};
    size_t at = 0;
    spans->length = 0;
    while (at < bytes && finder.error == 0) {
        const size_t block = skip_blank_lines(&finder, at);
        bool is_code = false;
        char sign;
        const size_t signs =
            block < bytes ? fence_of(&finder, block, line_end(&finder, block), &sign) : 0;
        const size_t end = signs > 0 ? fence_end(&finder, block, sign, signs)
                                     : block_end(&finder, block, &is_code);
        if (block < bytes && (signs > 0 || is_code)) {
            /* Blank lines around code belong to it. */
            const size_t behind = skip_blank_lines(&finder, end);
            add(&finder, at, behind, SPAN_CODE);
            at = behind > end ? behind : end;
            at = at > block ? at : block + 1;
            continue;
        }
        at = block < bytes ? find_inside(&finder, block, end) : bytes;
    }
    return finder.error;
}

bool spans_next_fence(const char *text, size_t bytes, size_t at, size_t *ret_from, size_t *ret_to)
{
    const struct finder finder = {.text = text, .bytes = bytes};
    char sign;
    if (at > 0 && at < bytes && text[at - 1] != '\n') {
        at = line_end(&finder, at) + 1;
    }
    while (at < bytes) {
        const size_t end = line_end(&finder, at);
        const size_t signs = fence_of(&finder, at, end, &sign);
        if (signs > 0) {
            *ret_from = at;
            *ret_to = fence_end(&finder, at, sign, signs);
            return true;
        }
        at = end + 1;
    }
    return false;
}

bool spans_has_code(const struct spans *spans, size_t from, size_t to)
{
    for (size_t i = 0; i < spans->length; i++) {
        const struct span *span = &spans->items[i];
        if (span->from < to && span->to > from &&
            (span->kind == SPAN_CODE || span->kind == SPAN_DATA)) {
            return true;
        }
    }
    return false;
}
