#include "broker/inquiry.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "broker/admin.h"
#include "broker/broker.h"
#include "broker/core/record.h"
#include "broker/names.h"
#include "broker/store/store.h"
#include "common/blob.h"

/* A token: the mark, how often the slot was used, the slot, the part. The core's tokens are below
 * the mark. */
#define TOKEN_MARK (UINT64_C(1) << 63)
enum { INQUIRIES_MAX = 32, PARTS_MAX = CORE_HISTORY_MAX + 1, PART_PAYLOAD = CORE_HISTORY_MAX };
enum { GENERATION_SHIFT = 16, SLOT_SHIFT = 8 };
static const double NANOUSD = 1e-9;

struct inquiry {
    bool is_open, is_asked;
    uint32_t generation;
    struct http_later *later;
    json_t *object; /* what is known by now */
    struct id job_id;
    bool wants_payload;
    struct core_history_view history;
    json_t *entries[CORE_HISTORY_MAX]; /* NULL: not there */
    size_t missing;                    /* parts that are not answered yet */
};

struct inquiries {
    struct inquiry slots[INQUIRIES_MAX];
};

int inquiries_create(struct inquiries **ret_inquiries)
{
    struct inquiries *inquiries = calloc(1, sizeof(*inquiries));
    if (inquiries == NULL) {
        return -ENOMEM;
    }
    *ret_inquiries = inquiries;
    return 0;
}

static void close_inquiry(struct inquiry *inquiry)
{
    for (size_t i = 0; i < CORE_HISTORY_MAX; i++) {
        json_decref(inquiry->entries[i]);
        inquiry->entries[i] = NULL;
    }
    json_decref(inquiry->object);
    inquiry->object = NULL;
    inquiry->is_open = false;
    inquiry->generation++;
}

void inquiries_destroy(struct inquiries **inquiries)
{
    struct inquiries *gone = TAKE(*inquiries);
    for (size_t i = 0; gone != NULL && i < INQUIRIES_MAX; i++) {
        struct inquiry *inquiry = &gone->slots[i];
        if (inquiry->is_open) {
            struct http_response response = {0};
            http_error(&response, 503, "the broker is shutting down");
            http_later_answer(&inquiry->later, &response);
            close_inquiry(inquiry);
        }
    }
    free(gone);
}

/* ---- attempts ---- */

static const char *next_word(Record__AttemptNext next)
{
    switch (next) {
    case RECORD__ATTEMPT_NEXT__NEXT_RETRY:
        return "retry";
    case RECORD__ATTEMPT_NEXT__NEXT_BACKOFF:
        return "backing_off";
    case RECORD__ATTEMPT_NEXT__NEXT_FAILOVER:
        return "failover";
    case RECORD__ATTEMPT_NEXT__NEXT_DEAD:
        return "dead";
    case RECORD__ATTEMPT_NEXT__NEXT_REQUEUED:
        return "requeued";
    case RECORD__ATTEMPT_NEXT__NEXT_UNKNOWN:
    case _RECORD__ATTEMPT_NEXT_IS_INT_SIZE:
        break;
    }
    return "unknown";
}

/* What followed, for people. */
static json_t *next_text(const Record__AttemptRecord *record)
{
    switch (record->next) {
    case RECORD__ATTEMPT_NEXT__NEXT_RETRY:
        return json_string("queued again at once");
    case RECORD__ATTEMPT_NEXT__NEXT_BACKOFF:
        if (record->retry_after_ms > 0) {
            return json_sprintf("tried again after %llu ms at the earliest; the provider asked for "
                                "%llu ms",
                                (unsigned long long)record->wait_ms,
                                (unsigned long long)record->retry_after_ms);
        }
        return json_sprintf("tried again after %llu ms at the earliest",
                            (unsigned long long)record->wait_ms);
    case RECORD__ATTEMPT_NEXT__NEXT_FAILOVER:
        return json_string("tried again with another model or provider");
    case RECORD__ATTEMPT_NEXT__NEXT_DEAD:
        return json_string("dead letter");
    case RECORD__ATTEMPT_NEXT__NEXT_REQUEUED:
        return json_string("a new life, given by an operator");
    case RECORD__ATTEMPT_NEXT__NEXT_UNKNOWN:
    case _RECORD__ATTEMPT_NEXT_IS_INT_SIZE:
        break;
    }
    return json_string("");
}

static const char *outcome_word(const Record__AttemptRecord *record)
{
    if (record->next == RECORD__ATTEMPT_NEXT__NEXT_REQUEUED) {
        return "requeued";
    }
    return record->lost ? "lost" : name_of_outcome((Wire__AttemptOutcome)record->outcome);
}

static json_t *entry_object(const Record__AttemptRecord *record)
{
    return json_pack(
        "{s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:I, s:b, s:s, s:I, s:o}",
        "attempt", (json_int_t)record->attempt, "outcome", outcome_word(record), "error_code",
        record->error_code, "error_text", record->error_text, "worker", record->worker, "provider",
        record->provider, "model", record->model, "ended_unix_ms",
        (json_int_t)record->ended_unix_ms, "run_ms", (json_int_t)record->run_ms, "calls",
        (json_int_t)record->calls, "call_ms", (json_int_t)record->call_ms, "cost_usd",
        (double)record->cost_nanousd * NANOUSD, "retry_after_ms",
        (json_int_t)record->retry_after_ms, "lost", record->lost, "next", next_word(record->next),
        "wait_ms", (json_int_t)record->wait_ms, "followed", next_text(record));
}

/* NULL when it is damaged, or without memory: as if it was not there. */
static json_t *read_entry(const void *data, size_t bytes)
{
    Record__AttemptRecord *record;
    if (record_read_attempt(data, bytes, NULL, &record) < 0) {
        return NULL;
    }
    json_t *entry = entry_object(record);
    record__attempt_record__free_unpacked(record, NULL);
    return entry;
}

/* Takes the entries. */
static void set_history(json_t *object, const struct core_history_view *view, json_t **entries)
{
    json_t *history = json_array();
    uint32_t omitted = view->omitted;
    for (uint32_t i = 0; i < view->kept; i++) {
        omitted += entries[i] == NULL;
        if (entries[i] != NULL) {
            json_array_append_new(history, TAKE(entries[i]));
        }
    }
    json_object_set_new(object, "history", history);
    json_object_set_new(object, "history_omitted", json_integer(omitted));
}

/* ---- the payload ---- */

static json_t *base64(const uint8_t *data, size_t bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = malloc((bytes + 2) / 3 * 4 + 1);
    size_t length = 0;
    for (size_t i = 0; text != NULL && i < bytes; i += 3) {
        const size_t rest = bytes - i;
        const uint32_t group = (uint32_t)data[i] << 16 |
                               (rest > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                               (rest > 2 ? data[i + 2] : 0u);
        text[length++] = digits[group >> 18];
        text[length++] = digits[group >> 12 & 63];
        text[length++] = rest > 1 ? digits[group >> 6 & 63] : '=';
        text[length++] = rest > 2 ? digits[group & 63] : '=';
    }
    json_t *value = text == NULL ? NULL : json_stringn(text, length);
    free(text);
    return value;
}

/* A model request as what it asks for; anything else, verbatim in base64. */
static json_t *request_object(const struct blob *payload)
{
    Wire__ModelRequest *request =
        wire__model_request__unpack(NULL, blob_bytes(payload), blob_data(payload));
    json_t *object = NULL;
    json_t *body = request == NULL ? NULL
                                   : json_loadb((const char *)request->body.data, request->body.len,
                                                JSON_ALLOW_NUL, NULL);
    if (body != NULL) {
        object = json_pack("{s:s, s:s, s:o}", "operation", request->operation, "model",
                           request->model, "body", body);
    }
    if (request != NULL) {
        wire__model_request__free_unpacked(request, NULL);
    }
    return object != NULL
               ? object
               : json_pack("{s:o}", "base64", base64(blob_data(payload), blob_bytes(payload)));
}

static void set_request(json_t *object, int result, const struct blob *payload)
{
    json_t *request = result == 0 && payload != NULL ? request_object(payload) : NULL;
    if (request != NULL) {
        json_object_set_new(object, "request", request);
        return;
    }
    json_object_set_new(
        object, "request_error",
        json_string(result == -ENOENT ? "it is not kept any more" : "it cannot be read now"));
}

/* ---- asking ---- */

static struct inquiry *free_slot(struct inquiries *inquiries)
{
    for (size_t i = 0; i < INQUIRIES_MAX; i++) {
        if (!inquiries->slots[i].is_open) {
            return &inquiries->slots[i];
        }
    }
    return NULL;
}

/* What is in memory needs no waiting. */
static void answer_at_once(struct broker *broker, struct http_response *response, json_t *object,
                           const struct core_history_view *history, const struct id *job_id,
                           bool wants_payload)
{
    json_t *entries[CORE_HISTORY_MAX] = {NULL};
    struct core_dead_view letter;
    for (uint32_t i = 0; i < history->kept; i++) {
        const struct core_history_entry *entry = &history->entries[i];
        entries[i] = entry->packed == NULL ? NULL : read_entry(entry->packed, entry->packed_bytes);
    }
    set_history(object, history, entries);
    if (wants_payload) {
        const bool is_there =
            core_view_dead(broker->core, job_id, &letter) == 0 && letter.payload != NULL;
        set_request(object, is_there ? 0 : -ENOENT, is_there ? letter.payload : NULL);
    }
    admin_answer(response, 200, object);
}

static void open_inquiry(struct broker *broker, const struct http_request *request,
                         struct http_response *response, json_t *object, const struct id *job_id,
                         const struct core_history_view *history, bool wants_payload)
{
    struct inquiry *inquiry = free_slot(broker->inquiries);
    struct http_later *later = NULL;
    if (inquiry == NULL || http_later(broker->admin, request, &later) < 0) {
        http_error(response, 503, "too much is asked for at once; try again later");
        json_decref(object);
        return;
    }
    inquiry->is_open = true;
    inquiry->is_asked = false;
    inquiry->later = later;
    inquiry->object = object;
    inquiry->job_id = *job_id;
    inquiry->wants_payload = wants_payload;
    inquiry->history = *history;
    inquiry->missing = history->kept + wants_payload;
    /* The turn, at whose end the store is asked, comes by itself: something woke the loop. */
}

void inquiry_answer(struct broker *broker, const struct http_request *request,
                    struct http_response *response, json_t *object, const struct id *job_id,
                    bool wants_payload)
{
    struct core_history_view history;
    if (object == NULL) {
        http_error(response, 500, "out of memory");
    } else if (core_view_history(broker->core, job_id, &history) < 0) {
        http_error(response, 404, "the job is gone");
        json_decref(object);
    } else if (history.is_on_disk && (history.kept > 0 || wants_payload)) {
        open_inquiry(broker, request, response, object, job_id, &history, wants_payload);
    } else {
        answer_at_once(broker, response, object, &history, job_id, wants_payload);
    }
}

static void end(struct inquiry *inquiry)
{
    struct http_response response = {0};
    set_history(inquiry->object, &inquiry->history, inquiry->entries);
    admin_answer(&response, 200, TAKE(inquiry->object));
    http_later_answer(&inquiry->later, &response);
    close_inquiry(inquiry);
}

static void take_part(struct inquiry *inquiry, size_t part, int result, struct blob *value)
{
    if (part == PART_PAYLOAD) {
        set_request(inquiry->object, result, value);
    } else if (result == 0) {
        inquiry->entries[part] = read_entry(blob_data(value), blob_bytes(value));
    }
    if (--inquiry->missing == 0) {
        end(inquiry);
    }
}

static uint64_t token_of(const struct inquiries *inquiries, const struct inquiry *inquiry,
                         size_t part)
{
    return TOKEN_MARK | (uint64_t)inquiry->generation << GENERATION_SHIFT |
           (uint64_t)(inquiry - inquiries->slots) << SLOT_SHIFT | part;
}

static void ask_store(struct broker *broker, struct inquiry *inquiry)
{
    const uint32_t generation = inquiry->generation;
    inquiry->is_asked = true;
    for (size_t part = 0; part < PARTS_MAX && inquiry->generation == generation; part++) {
        const bool is_payload = part == PART_PAYLOAD;
        if (is_payload ? !inquiry->wants_payload : part >= inquiry->history.kept) {
            continue;
        }
        const void *key = is_payload ? inquiry->job_id.bytes : inquiry->history.entries[part].key;
        const int r = store_load(broker->store, is_payload ? STORE_PAYLOADS : STORE_ATTEMPTS, key,
                                 is_payload ? ID_BYTES : CORE_HISTORY_KEY_BYTES,
                                 token_of(broker->inquiries, inquiry, part));
        if (r < 0) {
            take_part(inquiry, part, r, NULL);
        }
    }
}

void inquiries_ask(struct broker *broker)
{
    for (size_t i = 0; i < INQUIRIES_MAX; i++) {
        struct inquiry *inquiry = &broker->inquiries->slots[i];
        if (inquiry->is_open && !inquiry->is_asked) {
            ask_store(broker, inquiry);
        }
    }
}

bool inquiry_is_token(uint64_t token)
{
    return (token & TOKEN_MARK) != 0;
}

void inquiries_loaded(struct broker *broker, uint64_t token, int result, struct blob *value)
{
    const size_t slot = token >> SLOT_SHIFT & 0xff;
    const size_t part = token & 0xff;
    struct inquiry *inquiry = slot < INQUIRIES_MAX ? &broker->inquiries->slots[slot] : NULL;
    if (inquiry != NULL && inquiry->is_open && part < PARTS_MAX &&
        inquiry->generation == (uint32_t)(token >> GENERATION_SHIFT)) {
        take_part(inquiry, part, result, value);
    }
}
