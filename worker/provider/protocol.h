/*
 * protocol: how one kind of provider is spoken to. Translates between OpenAI's form and the
 * provider's; no I/O, no state but that of one stream.
 */
#pragma once
#include <curl/curl.h>
#include <jansson.h>
#include "common/attributes.h"
#include "worker/bytes.h"
#include "worker/provider/outcome.h"
#include "worker/provider/provider.h"

/* More choices than this no provider gives whose stream names them. */
enum { PROTOCOL_CHOICES_MAX = 8 };

/* What is to be remembered of one choice of a stream. */
struct protocol_choice {
    int64_t tool_calls; /* begun so far */
    bool is_begun;
    bool is_ended;
};

/* What a stream's translation has to remember; all but `operation` is zero at its start. */
struct protocol_stream {
    enum operation operation;
    json_t *head;       /* members that every chunk carries: id, object, created, model */
    json_t *usage;      /* counts that came in parts */
    json_t *items;      /* by the id that a provider knows a tool call by: its index */
    json_t *whole;      /* operation responses: the answer, which comes with the last event */
    int64_t tool_calls; /* begun so far */
    bool is_json;       /* a tool's input is the answer's text … */
    bool is_in_json;    /* … and that is what comes now */
    struct protocol_choice choices[PROTOCOL_CHOICES_MAX]; /* where several are told apart */
    bool is_ended;                                        /* the provider said that this was all */
};
void protocol_stream_finish(struct protocol_stream *stream);

/* ---- what several protocols do alike ---- */

/*
 * Adds the header `name` with the key, behind "Bearer " in Authorization; none for an empty key.
 * NULL on a lack of memory.
 */
struct curl_slist *protocol_add_key(struct curl_slist *headers, const char *name,
                                    const char *api_key);
/* The bound that a chat sets for its answer, an integer; NULL: none. Borrowed. */
json_t *protocol_bound(const json_t *body);
/* A count of tokens; 0 for what is none. */
json_int_t protocol_count(const json_t *usage, const char *name);
/*
 * Gives: a chunk of a chat with the stream's head and one choice, a reference. Takes `delta`.
 * `reason` NULL: it has not ended. NULL on a lack of memory.
 */
json_t *protocol_chunk(const struct protocol_stream *stream, json_t *delta, const char *reason);

typedef json_t *protocol_tool_fn(const json_t *tool);
/* Sets `tools` to those of a chat, each as `translate` gives it (NULL on a lack of memory); nothing
 * when there are none. Errors: -ENOMEM. */
MUST_USE int protocol_set_tools(json_t *out, const json_t *body, protocol_tool_fn *translate);

/* ---- a protocol ---- */

struct protocol {
    /*
     * Appends what comes behind the base address. Errors: -ENOTSUP the operation is not offered;
     * -EMSGSIZE, -ENOMEM.
     */
    int (*write_path)(const struct provider_request *request, struct bytes *out);
    /*
     * The request's body as the provider wants it.
     * Errors: -EINVAL it cannot be said (ret_outcome); -EMSGSIZE, -ENOMEM.
     */
    int (*write_body)(const struct provider_request *request, struct bytes *out,
                      struct outcome *ret_outcome);
    /* Adds credentials; the key may be empty. NULL on a lack of memory. */
    struct curl_slist *(*add_headers)(struct curl_slist *headers, const char *api_key);
    /*
     * A whole reply in OpenAI form, also an error that came as a success. NULL: it is in that form
     * already.
     * Gives: *ret_answer, a reference. Errors: -EBADMSG it is no answer; -ENOMEM.
     */
    int (*read_answer)(const json_t *reply, json_t **ret_answer);
    /*
     * One event of a stream; an event as it is, where read_answer is NULL. Gives: *ret_chunk, a
     * reference, NULL when the event says nothing a client needs. Errors: -EBADMSG; -ECONNABORTED
     * the event is an error (ret_outcome); -ENOMEM.
     */
    int (*read_event)(struct protocol_stream *stream, const char *name, const char *data,
                      size_t bytes, json_t **ret_chunk, struct outcome *ret_outcome);
};

extern const struct protocol protocol_openai;
extern const struct protocol protocol_anthropic;
extern const struct protocol protocol_gemini;
extern const struct protocol protocol_azure;
extern const struct protocol protocol_responses; /* for chats */
