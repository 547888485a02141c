/*
 * sse: server-sent events, piece by piece (WHATWG HTML, "Parsing an event stream").
 *
 * Pieces may be cut anywhere, inside a line end too. Lines end with LF, CR or CRLF; a byte order
 * mark at the very start and comments are passed over; several data lines of an event are joined
 * with LF. An event without data is not reported. `id` and `retry` are ignored: a provider's stream
 * is never resumed. A line that begins with a brace is no field: servers that fail in the middle of
 * a stream put their error there bare (github.com/vercel/ai/issues/5217: Google, even behind the
 * last event). Bounded by bytes_max for one event.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/attributes.h"
#include "worker/bytes.h"

enum { SSE_NAME_BYTES_MAX = 63 };

/*
 * `name` is "message" when the event has none; `data` is NUL-terminated. Not 0: stops, sse_feed()
 * returns it.
 */
typedef int sse_fn(void *context, const char *name, const char *data, size_t data_bytes);

struct sse {
    struct bytes line;
    struct bytes data;
    char name[SSE_NAME_BYTES_MAX + 1];
    bool has_data;
    bool after_cr; /* an LF that follows belongs to the CR */
    bool is_begun; /* past the place of a byte order mark */
    sse_fn *handler;
    void *context;
};

void sse_init(struct sse *sse, size_t bytes_max, sse_fn *handler, void *context);
void sse_finish(struct sse *sse);
/*
 * Errors: -EMSGSIZE a line or an event above bytes_max; -EBADMSG a bare JSON object; -ENOMEM; or
 * what the handler returned.
 */
MUST_USE int sse_feed(struct sse *sse, const void *data, size_t bytes);
