#include "worker/prompt/space.h"

#include <stdbool.h>
#include <string.h>

#include "worker/prompt/spans.h"

enum { RULE_SIGNS_MIN = 9, RULE_SIGNS_KEPT = 3 };

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static bool is_space(char c)
{
    return is_blank(c) || c == '\n';
}

/* Bytes of a character that nobody sees; 0: it is seen. */
static size_t invisible(const char *text, size_t bytes)
{
    if (bytes >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) {
        return 3;
    }
    return bytes >= 2 && memcmp(text, "\xC2\xAD", 2) == 0 ? 2 : 0;
}

/* Signs of a drawn line that is all of [from, its end); 0: it is none. */
static size_t rule_signs(const char *text, size_t bytes, size_t from)
{
    size_t at = from;
    if (from < bytes && strchr("-=*_~#", text[from]) != NULL && text[from] != '\0') {
        while (at < bytes && text[at] == text[from]) {
            at++;
        }
    }
    const bool is_whole = at == bytes || text[at] == '\n';
    return is_whole && at - from >= RULE_SIGNS_MIN ? at - from : 0;
}

/* White space at [from, to) between prose, or at an end of it, becomes this. */
static const char *space_for(const char *text, size_t from, size_t to, size_t bytes)
{
    size_t newlines = 0;
    for (size_t i = from; i < to; i++) {
        newlines += text[i] == '\n' ? 1 : 0;
    }
    if (from == 0 || to == bytes) {
        return "";
    }
    return newlines == 0 ? " " : newlines == 1 ? "\n" : "\n\n";
}

/* How a line begins is kept, as it may be a list's depth. */
static int space_write(const char *text, size_t from, size_t to, size_t bytes, struct bytes *out)
{
    size_t indent = to;
    const char *instead = space_for(text, from, to, bytes);
    while (indent > from && is_blank(text[indent - 1])) {
        indent--;
    }
    int r = bytes_append_text(out, instead);
    if (r < 0 || to == bytes || (indent == from && from > 0)) {
        return r;
    }
    return bytes_append(out, text + indent, to - indent);
}

/* One run of prose outside all spans: [from, to). */
static int prose_write(const char *text, size_t from, size_t to, size_t bytes, struct bytes *out)
{
    int r = 0;
    for (size_t at = from; r == 0 && at < to;) {
        const size_t hidden = invisible(text + at, to - at);
        const bool begins_line = at == 0 || text[at - 1] == '\n';
        const size_t signs = begins_line ? rule_signs(text, bytes, at) : 0;
        size_t end = at + 1;
        if (hidden > 0) {
            end = at + hidden;
        } else if (signs > 0 && at + signs <= to) {
            end = at + signs;
            r = bytes_append(out, text + at, RULE_SIGNS_KEPT);
        } else if (is_space(text[at])) {
            while (end < to && is_space(text[end])) {
                end++;
            }
            r = space_write(text, at, end, bytes, out);
        } else {
            r = bytes_append(out, text + at, 1);
        }
        at = end;
    }
    return r;
}

static int tidy_once(const char *text, size_t bytes, struct spans *spans, struct bytes *out)
{
    size_t at = 0;
    bytes_clear(out);
    int r = spans_find(text, bytes, spans);
    for (size_t i = 0; r == 0 && i < spans->length; i++) {
        const struct span *span = &spans->items[i];
        r = prose_write(text, at, span->from, bytes, out);
        r = r < 0 ? r : bytes_append(out, text + span->from, span->to - span->from);
        at = span->to;
    }
    return r < 0 ? r : prose_write(text, at, bytes, bytes, out);
}

static bool are_equal(const struct bytes *one, const struct bytes *other)
{
    if (one->length != other->length) {
        return false;
    }
    return one->data == NULL || other->data == NULL ||
           memcmp(one->data, other->data, one->length) == 0;
}

int space_tidy(const char *text, size_t bytes, struct bytes *out)
{
    struct spans spans = {.items = NULL};
    struct bytes again = {.bytes_max = out->bytes_max};
    int r = tidy_once(text, bytes, &spans, out);
    r = r < 0 ? r : tidy_once(out->data == NULL ? "" : out->data, out->length, &spans, &again);
    if (r == 0 && !are_equal(out, &again)) {
        bytes_clear(out);
        r = bytes_append(out, text, bytes);
    }
    bytes_finish(&again);
    spans_finish(&spans);
    return r;
}
