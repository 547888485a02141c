/*
 * Two passes in one: lines first, in blocks between blank lines, since whether a line is code shows
 * in its neighbours; then, within the blocks that are prose, what stands inside a line. A span that
 * began in a block may end in a later one (a brace, a quotation). Blocks are found as if it did
 * not: what it leaves of a block that is code is code, and behind an end between fences all is
 * kept, since it may be the fence that is none.
 */
#include "worker/prompt/spans.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { QUOTES = 11, FENCE_SIGNS_MIN = 3, FENCE_BLANKS_MAX = 3 };

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

/* Source: CommonMark 0.31, "Fenced code blocks". */
struct fence {
    char sign;
    size_t signs;
    bool may_open, may_close; /* neither: the line is no fence */
};

/* ``` or ~~~ after up to three blanks. Behind signs that close nothing stands. */
static struct fence fence_of(const struct finder *finder, size_t from, size_t to)
{
    size_t at = from;
    while (at < to && at < from + FENCE_BLANKS_MAX && finder->text[at] == ' ') {
        at++;
    }
    struct fence fence = {.sign = at < to ? finder->text[at] : '\0'};
    for (; at < to && finder->text[at] == fence.sign; at++) {
        fence.signs++;
    }
    if ((fence.sign == '`' || fence.sign == '~') && fence.signs >= FENCE_SIGNS_MIN) {
        fence.may_open = fence.sign == '~' || memchr(finder->text + at, '`', to - at) == NULL;
        fence.may_close = is_blank_line(finder, at, to);
    }
    return fence;
}

/* From the line of a fence to behind the one that closes it; all that follows, if none does. */
static size_t fence_end(const struct finder *finder, size_t from, const struct fence *fence)
{
    size_t at = line_end(finder, from);
    while (at < finder->bytes) {
        const size_t begin = at + 1;
        at = line_end(finder, begin);
        const struct fence other = fence_of(finder, begin, at);
        if (other.may_close && other.sign == fence->sign && other.signs >= fence->signs) {
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

static bool is_of_word(char c)
{
    return isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

/* [from, to) stands like a mark that opens: before something, and not behind a word. */
static bool may_open(const struct finder *finder, size_t from, size_t to)
{
    return to < finder->bytes && !isspace((unsigned char)finder->text[to]) &&
           (from == 0 || !is_of_word(finder->text[from - 1]));
}

/* … like one that closes: behind something, and not before a word. */
static bool may_close(const struct finder *finder, size_t from, size_t to)
{
    return from > 0 && !isspace((unsigned char)finder->text[from - 1]) &&
           (to == finder->bytes || !is_of_word(finder->text[to]));
}

/* The next straight mark; `to`: there is none before it. */
static size_t next_mark(const struct finder *finder, size_t from, size_t to)
{
    while (from < to && finder->text[from] != '"') {
        from++;
    }
    return from < to ? from : to;
}

static bool mark_may_open(const struct finder *finder, size_t at)
{
    return may_open(finder, at, at + 1);
}

static bool mark_may_close(const struct finder *finder, size_t at)
{
    return may_close(finder, at, at + 1);
}

/*
 * Which of two straight marks opens shows only in how they stand. Where they and the next one do
 * not stand as marks of quotations do, one of them may be inches, or belong to another paragraph:
 * all to the paragraph's end may be quoted then, and on to a mark that only closes, if one is near.
 */
static size_t straight_end(const struct finder *finder, size_t at, bool *ret_is_sure)
{
    const size_t end = finder->paragraph;
    const size_t closing = next_mark(finder, at + 1, end);
    const size_t third = next_mark(finder, closing + 1, end);
    *ret_is_sure = closing < end && mark_may_open(finder, at) && mark_may_close(finder, closing) &&
                   (third >= end || mark_may_open(finder, third));
    if (*ret_is_sure) {
        return closing + 1;
    }
    const size_t left = finder->bytes - end;
    const size_t stop = end + (left < SPANS_QUOTE_BYTES_MAX ? left : SPANS_QUOTE_BYTES_MAX);
    const size_t behind = next_mark(finder, end, stop);
    return behind < stop && mark_may_close(finder, behind) && !mark_may_open(finder, behind)
               ? behind + 1
               : end;
}

static const struct quote {
    const char *opening, *closing;
    bool is_single; /* the closing mark may be an apostrophe */
    bool
        is_turned; /* the opening mark closes others: it opens where it stands like one that does */
} quotes[QUOTES] = {
    {"\xE2\x80\x9C", "\xE2\x80\x9D", false, false}, /* “ ” */
    {"\xE2\x80\x9E", "\xE2\x80\x9C", false, false}, /* „ “ */
    {"\xE2\x80\x9D", "\xE2\x80\x9D", false, true},  /* ” ” */
    {"\xC2\xAB", "\xC2\xBB", false, false},         /* « » */
    {"\xC2\xBB", "\xC2\xAB", false, true},          /* » « */
    {"\xE2\x80\x98", "\xE2\x80\x99", true, false},  /* ‘ ’ */
    {"\xE2\x80\x9A", "\xE2\x80\x98", false, false}, /* ‚ ‘ */
    {"\xE2\x80\xB9", "\xE2\x80\xBA", false, false}, /* ‹ › */
    {"'", "'", true, false},
    {"\xE3\x80\x8C", "\xE3\x80\x8D", false, false}, /* 「 」 */
    {"\xE3\x80\x8E", "\xE3\x80\x8F", false, false}, /* 『 』 */
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
 * many bytes, where each may open another one. Looked for once in a paragraph.
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
 * Behind the quotation; 0: it is none. What nothing closes goes on in the next paragraph (which
 * begins with a mark as well); an apostrophe opens nothing.
 */
static size_t quote_end(struct finder *finder, size_t at, size_t kind, bool *ret_is_sure)
{
    const struct quote *quote = &quotes[kind];
    const size_t from = at + strlen(quote->opening);
    const size_t near = near_quote_end(finder, from, kind);
    *ret_is_sure =
        near > 0 && (!quote->is_turned || may_close(finder, near - strlen(quote->closing), near));
    if (*ret_is_sure) {
        return near;
    }
    const size_t far = quote->is_turned ? 0 : far_quote_end(finder, from, kind);
    return far > from ? far : quote->is_single ? 0 : finder->paragraph;
}

static size_t paired_end(struct finder *finder, size_t at, bool *ret_is_sure)
{
    for (size_t i = 0; i < QUOTES; i++) {
        const struct quote *quote = &quotes[i];
        if (begins_with(finder->text + at, finder->bytes - at, quote->opening)) {
            const bool is_apostrophe =
                quote->is_single && at > 0 && isalnum((unsigned char)finder->text[at - 1]);
            const bool closes_others =
                quote->is_turned && !may_open(finder, at, at + strlen(quote->opening));
            return is_apostrophe || closes_others ? 0 : quote_end(finder, at, i, ret_is_sure);
        }
    }
    return 0;
}

/* What may be no quotation: code or data in it is that, to the data's end. */
static size_t with_data(const struct finder *finder, size_t from, size_t to,
                        enum span_kind *ret_kind)
{
    for (size_t at = from; at < to;) {
        const char c = finder->text[at];
        const bool is_data = c == '{' || c == '[';
        *ret_kind = is_data || c == '`' ? SPAN_DATA : *ret_kind;
        at = is_data ? bracket_end(finder, at) : at + 1;
        to = at > to ? at : to;
    }
    return to;
}

static size_t find_quote(struct finder *finder, size_t at, enum span_kind *ret_kind)
{
    bool is_sure = false;
    const size_t end = finder->text[at] == '"' ? straight_end(finder, at, &is_sure)
                                               : paired_end(finder, at, &is_sure);
    const bool is_short = end <= at + SPANS_QUOTE_BYTES_MAX;
    return end == 0 || (is_sure && is_short) ? end : with_data(finder, at, end, ret_kind);
}

/* `code`, ``code``: behind the same number of backticks. The paragraph's end, if there are none, or
 * if they do not stand like marks around something: any of them may be a sign by itself. */
static size_t backtick_end(const struct finder *finder, size_t at)
{
    const size_t end = finder->paragraph;
    size_t from = at;
    while (from < end && finder->text[from] == '`') {
        from++;
    }
    const size_t signs = from - at;
    size_t run = 0;
    for (size_t i = from; i < end && may_open(finder, at, from); i++) {
        run = finder->text[i] == '`' ? run + 1 : 0;
        if (run == signs && (i + 1 == end || finder->text[i + 1] != '`')) {
            return may_close(finder, i + 1 - signs, i + 1) ? i + 1 : end;
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
    return c == '"' || c == '\'' || (unsigned char)c >= 0x80 ? find_quote(finder, at, ret_kind) : 0;
}

/* Where the last span ends: it may be in a later block than it began. */
static size_t behind_spans(const struct finder *finder)
{
    const struct spans *spans = finder->spans;
    return spans->length > 0 ? spans->items[spans->length - 1].to : 0;
}

/* Spans that begin in the paragraph [from, to), behind those that reach into it. */
static void find_inside(struct finder *finder, size_t from, size_t to)
{
    size_t free_from = behind_spans(finder) > from ? behind_spans(finder) : from;
    finder->paragraph = to;
    memset(finder->is_known, 0, sizeof(finder->is_known));
    for (size_t at = free_from; at < to;) {
        enum span_kind kind;
        const size_t end = span_at(finder, at, &kind);
        if (end <= at) {
            at++;
            continue;
        }
        add(finder, kind == SPAN_NUMBER ? word_begin(finder, at, free_from) : at, end, kind);
        at = free_from = end;
    }
}

/* ---- blocks ---- */

/* Behind the block's last line; *ret_is_code: all of it is to stay. */
static size_t block_end(const struct finder *finder, size_t from, bool *ret_is_code)
{
    size_t gaps = 0;
    size_t at = from;
    *ret_is_code = false;
    while (at < finder->bytes) {
        const size_t end = line_end(finder, at);
        const char *line = finder->text + at;
        if (is_blank_line(finder, at, end) || (at > from && fence_of(finder, at, end).may_open)) {
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

/* All of it; what has reached into it is code as well. */
static void add_code(struct finder *finder, size_t from, size_t to)
{
    struct spans *spans = finder->spans;
    const size_t behind = behind_spans(finder);
    if (behind > from) {
        spans->items[spans->length - 1].kind = SPAN_CODE;
        from = behind;
    }
    add(finder, from, to, SPAN_CODE);
}

/* The block that begins at `begin`, with the blank lines before it from `at` on; where it ends. */
static size_t find_in_block(struct finder *finder, size_t at, size_t begin)
{
    const struct fence fence = fence_of(finder, begin, line_end(finder, begin));
    bool is_code = fence.may_open;
    size_t end = is_code ? fence_end(finder, begin, &fence) : block_end(finder, begin, &is_code);
    const size_t behind = behind_spans(finder);
    if (!is_code) {
        find_inside(finder, begin, end);
        return end;
    }
    /* Blank lines around code belong to it. */
    end = fence.may_open && behind > begin && behind < end ? finder->bytes
                                                           : skip_blank_lines(finder, end);
    add_code(finder, at, end);
    return end;
}

int spans_find(const char *text, size_t bytes, struct spans *spans)
{
    struct finder finder = {.text = text, .bytes = bytes, .spans = spans};
    spans->length = 0;
    for (size_t at = 0; at < bytes && finder.error == 0;) {
        const size_t begin = skip_blank_lines(&finder, at);
        at = begin < bytes ? find_in_block(&finder, at, begin) : bytes;
    }
    return finder.error;
}

bool spans_next_fence(const char *text, size_t bytes, size_t at, size_t *ret_from, size_t *ret_to)
{
    const struct finder finder = {.text = text, .bytes = bytes};
    if (at > 0 && at < bytes && text[at - 1] != '\n') {
        at = line_end(&finder, at) + 1;
    }
    while (at < bytes) {
        const size_t end = line_end(&finder, at);
        const struct fence fence = fence_of(&finder, at, end);
        if (fence.may_open) {
            *ret_from = at;
            *ret_to = fence_end(&finder, at, &fence);
            return true;
        }
        at = end + 1;
    }
    return false;
}

/* The first span that ends behind `at`. */
static size_t span_behind(const struct spans *spans, size_t at)
{
    size_t low = 0;
    size_t high = spans->length;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (spans->items[middle].to <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool spans_has_code(const struct spans *spans, size_t from, size_t to)
{
    for (size_t i = span_behind(spans, from); i < spans->length && spans->items[i].from < to; i++) {
        const enum span_kind kind = spans->items[i].kind;
        if (kind == SPAN_CODE || kind == SPAN_DATA) {
            return true;
        }
    }
    return false;
}
