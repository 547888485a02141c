#include "worker/provider/sse.h"

#include <errno.h>
#include <string.h>

static int sse_dispatch(struct sse *sse)
{
    int r = 0;
    if (sse->has_data) {
        r = sse->handler(sse->context, sse->name[0] == '\0' ? "message" : sse->name, sse->data.data,
                         sse->data.length);
    }
    bytes_clear(&sse->data);
    sse->name[0] = '\0';
    sse->has_data = false;
    return r;
}

static int sse_take_data(struct sse *sse, const char *value, size_t bytes)
{
    if (sse->has_data) {
        int r = bytes_append(&sse->data, "\n", 1);
        if (r < 0) {
            return r;
        }
    }
    sse->has_data = true;
    return bytes_append(&sse->data, value, bytes);
}

static void sse_take_name(struct sse *sse, const char *value, size_t bytes)
{
    const size_t length = bytes > SSE_NAME_BYTES_MAX ? SSE_NAME_BYTES_MAX : bytes;
    memcpy(sse->name, value, length);
    sse->name[length] = '\0';
}

static int sse_take_line(struct sse *sse)
{
    const char *line = sse->line.data == NULL ? "" : sse->line.data;
    size_t length = sse->line.length;
    if (!sse->is_begun && length >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0) {
        line += 3;
        length -= 3;
    }
    sse->is_begun = true;
    if (length == 0) {
        return sse_dispatch(sse);
    }
    if (line[0] == '{') {
        return -EBADMSG;
    }
    const char *colon = memchr(line, ':', length);
    const size_t field = colon == NULL ? length : (size_t)(colon - line);
    const char *value = colon == NULL ? line + length : colon + 1;
    size_t value_bytes = length - (size_t)(value - line);
    if (value_bytes > 0 && value[0] == ' ') {
        value++;
        value_bytes--;
    }
    if (field == 4 && memcmp(line, "data", 4) == 0) {
        return sse_take_data(sse, value, value_bytes);
    }
    if (field == 5 && memcmp(line, "event", 5) == 0) {
        sse_take_name(sse, value, value_bytes);
    }
    return 0;
}

void sse_init(struct sse *sse, size_t bytes_max, sse_fn *handler, void *context)
{
    *sse = (struct sse){
        .line = {.bytes_max = bytes_max},
        .data = {.bytes_max = bytes_max},
        .handler = handler,
        .context = context,
    };
}

void sse_finish(struct sse *sse)
{
    bytes_finish(&sse->line);
    bytes_finish(&sse->data);
}

/* Where the line that begins at `at` ends; `end`: not yet. *newline is the next one, if it is not
 * before `at`. */
static const char *find_line_end(const char *at, const char *end, const char **newline)
{
    if (*newline == NULL || *newline < at) {
        const char *next = memchr(at, '\n', (size_t)(end - at));
        *newline = next == NULL ? end : next;
    }
    const char *stop = *newline;
    const char *carriage = memchr(at, '\r', (size_t)(stop - at));
    return carriage == NULL ? stop : carriage;
}

int sse_feed(struct sse *sse, const void *data, size_t bytes)
{
    const char *at = data;
    const char *const end = at + bytes;
    const char *newline = NULL;
    while (at < end) {
        if (sse->after_cr) {
            sse->after_cr = false;
            if (*at == '\n') {
                at++;
                continue;
            }
        }
        const char *stop = find_line_end(at, end, &newline);
        int r = bytes_append(&sse->line, at, (size_t)(stop - at));
        if (r < 0) {
            return r;
        }
        if (stop == end) {
            return 0;
        }
        sse->after_cr = *stop == '\r';
        at = stop + 1;
        r = sse_take_line(sse);
        bytes_clear(&sse->line);
        if (r != 0) {
            return r;
        }
    }
    return 0;
}
