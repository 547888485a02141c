#include "client/cli/lines.h"
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "client/cli/cli.h"

enum { PRIORITY_MAX = 9, TOKENS_MAX = 1 << 30, COMPLEXITY_MAX = 255 };

/* ------------------------------------------------------------------------------------------- lines
 * of text */

/* What is beyond LINE_BYTES_MAX is dropped: the line is refused as a whole. */
static int append(struct line_reader *reader, const char *data, size_t bytes)
{
    if (bytes > LINE_BYTES_MAX - reader->bytes) {
        reader->is_too_long = true;
        bytes = LINE_BYTES_MAX - reader->bytes;
    }
    if (reader->bytes + bytes + 1 > reader->capacity) {
        const size_t capacity = 2 * (reader->bytes + bytes + 1);
        char *text = realloc(reader->text, capacity);
        if (text == NULL) {
            return -ENOMEM;
        }
        reader->text = text;
        reader->capacity = capacity;
    }
    memcpy(reader->text + reader->bytes, data, bytes);
    reader->bytes += bytes;
    reader->text[reader->bytes] = '\0';
    return 0;
}

/* Returns 1; 0 at the end of the input. Errors: -EAGAIN, -errno. */
static int fill_buffer(struct line_reader *reader)
{
    struct pollfd poll_fd = {.fd = reader->fd, .events = POLLIN};
    if (poll(&poll_fd, 1, 0) == 0) {
        return -EAGAIN;
    }
    const ssize_t got = read(reader->fd, reader->buffer, sizeof(reader->buffer));
    if (got < 0) {
        return errno == EINTR ? -EAGAIN : -errno;
    }
    reader->at = 0;
    reader->end = (size_t)got;
    reader->bytes_read += (uint64_t)got;
    return got > 0;
}

static void begin_line(struct line_reader *reader)
{
    if (!reader->is_partial) {
        reader->is_partial = true;
        reader->is_too_long = false;
        reader->bytes = 0;
        reader->number++;
    }
}

/* One line, blank or not. Returns 1; 0 at the end. */
static int read_line(struct line_reader *reader)
{
    for (;;) {
        if (reader->at == reader->end) {
            int r = reader->is_at_end ? 0 : fill_buffer(reader);
            if (r < 0) {
                return r;
            }
            if (r == 0) {
                reader->is_at_end = true;
                r = reader->is_partial;
                reader->is_partial = false;
                return r;
            }
        }
        begin_line(reader);
        const char *from = reader->buffer + reader->at;
        const size_t left = reader->end - reader->at;
        const char *end = memchr(from, '\n', left);
        const size_t bytes = end == NULL ? left : (size_t)(end - from);
        int r = append(reader, from, bytes);
        if (r < 0) {
            return r;
        }
        reader->at += bytes + (end != NULL);
        if (end != NULL) {
            reader->is_partial = false;
            return 1;
        }
    }
}

int line_reader_next(struct line_reader *reader)
{
    for (;;) {
        int r = read_line(reader);
        if (r <= 0) {
            return r;
        }
        if (reader->is_too_long || strspn(reader->text, " \t\r") < reader->bytes) {
            return 1;
        }
    }
}

void line_reader_finish(struct line_reader *reader)
{
    free(reader->text);
    reader->text = NULL;
}

/* ------------------------------------------------------------------------------------------- a
 * line as a job */

static int refuse(char *ret_error, const char *format, ...) PRINTF_LIKE(2, 3);
static int refuse(char *ret_error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(ret_error, LINE_ERROR_BYTES, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

/* With the value that was found, as JSON: a long one is cut. */
__attribute__((format(printf, 3, 4))) static int refuse_value(const json_t *value, char *ret_error,
                                                              const char *format, ...)
{
    char *found = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY |
                                        JSON_ENSURE_ASCII | /* may be cut anywhere */
                                        JSON_REAL_PRECISION(6));
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(ret_error, LINE_ERROR_BYTES, format, arguments);
    va_end(arguments);
    if (found != NULL && length > 0 && length < LINE_ERROR_BYTES) {
        (void)snprintf(ret_error + length, (size_t)(LINE_ERROR_BYTES - length), ", and is %.60s",
                       found);
    }
    free(found);
    return -EINVAL;
}

static int read_text(const json_t *root, const char *member, const char **ret_text, char *ret_error)
{
    const json_t *value = json_object_get(root, member);
    if (value == NULL || json_is_null(value)) {
        return 0;
    }
    if (!json_is_string(value)) {
        return refuse_value(value, ret_error, "%s: must be a string", member);
    }
    *ret_text = json_string_value(value);
    return 0;
}

static int read_texts(const json_t *root, struct tiermq_job *job, char *ret_error)
{
    const struct {
        const char *member;
        const char **text;
    } texts[] = {{"text", &job->prompt},
                 {"prompt", &job->prompt},
                 {"tier", &job->tier},
                 {"model", &job->route},
                 {"route", &job->route},
                 {"pool", &job->pool},
                 {"operation", &job->operation},
                 {"idempotency_key", &job->idempotency_key},
                 {"residency", &job->residency},
                 {"task", &job->task},
                 {"trace_parent", &job->trace_parent}};
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        int r = read_text(root, texts[i].member, texts[i].text, ret_error);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int read_from(const json_t *root, const char *member, json_int_t least, json_int_t most,
                     unsigned *ret_number, char *ret_error)
{
    const json_t *value = json_object_get(root, member);
    if (value == NULL || json_is_null(value)) {
        return 0;
    }
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < least || number > most) {
        return refuse_value(value, ret_error, "%s: must be a whole number from %lld to %lld",
                            member, (long long)least, (long long)most);
    }
    *ret_number = (unsigned)number;
    return 0;
}

static int read_count(const json_t *root, const char *member, json_int_t most, unsigned *ret_number,
                      char *ret_error)
{
    return read_from(root, member, 0, most, ret_number, ret_error);
}

static int read_time(const json_t *root, const char *member, int64_t *ret_ms, char *ret_error)
{
    const json_t *value = json_object_get(root, member);
    if (value == NULL || json_is_null(value)) {
        return 0;
    }
    const double seconds = json_number_value(value);
    if (json_is_number(value) && seconds >= 0 && seconds < 1e9) {
        *ret_ms = (int64_t)(seconds * 1000.0);
        return 0;
    }
    if (!json_is_string(value) || cli_read_duration(json_string_value(value), ret_ms) < 0) {
        return refuse_value(value, ret_error, "%s: must be a duration such as \"30s\", or seconds",
                            member);
    }
    return 0;
}

static int read_truth(const json_t *root, const char *member, bool *ret_truth, char *ret_error)
{
    const json_t *value = json_object_get(root, member);
    if (value == NULL || json_is_null(value)) {
        return 0;
    }
    if (!json_is_boolean(value)) {
        return refuse_value(value, ret_error, "%s: must be true or false", member);
    }
    *ret_truth = json_is_true(value);
    return 0;
}

static int read_numbers(const json_t *root, struct tiermq_job *job, char *ret_error)
{
    int r = read_count(root, "priority", PRIORITY_MAX, &job->priority, ret_error);
    if (r == 0) {
        r = read_count(root, "max_tokens", TOKENS_MAX, &job->max_tokens, ret_error);
    }
    if (r == 0) {
        r = read_from(root, "prompt_complexity", 1, COMPLEXITY_MAX, &job->complexity, ret_error);
    }
    if (r == 0) {
        r = read_count(root, "estimated_tokens", TOKENS_MAX, &job->estimated_tokens, ret_error);
    }
    if (r == 0) {
        r = read_time(root, "deadline", &job->deadline_ms, ret_error);
    }
    if (r == 0) {
        r = read_time(root, "delay", &job->delay_ms, ret_error);
    }
    return r;
}

/* The body is written again from what was read: members keep their order and integers all their
 * digits. */
static int read_body(const json_t *root, struct line_job *job, char *ret_error)
{
    const json_t *body = json_object_get(root, "body");
    if (body == NULL || json_is_null(body)) {
        return 0;
    }
    if (!json_is_object(body)) {
        return refuse(ret_error, "body: must be an object, the request in OpenAI's format");
    }
    job->body = json_dumps(body, JSON_COMPACT);
    if (job->body == NULL) {
        return -ENOMEM;
    }
    job->job.body = job->body;
    job->job.body_bytes = strlen(job->body);
    return 0;
}

static void read_reference(struct line_job *job)
{
    const json_t *custom = json_object_get(job->root, "custom_id");
    const json_t *own = json_object_get(job->root, "id");
    job->reference = own != NULL ? own : custom;
    const char *text = json_string_value(job->reference);
    /* Not an error when it is no UUID: most data has ids of its own. */
    if (text != NULL && tiermq_id_parse(text, &job->job.id) < 0) {
        job->job.id = (tiermq_id){{0}};
    }
}

static int read_object(struct line_job *job, char *ret_error)
{
    read_reference(job);
    int r = read_texts(job->root, &job->job, ret_error);
    if (r == 0) {
        r = read_numbers(job->root, &job->job, ret_error);
    }
    if (r == 0) {
        r = read_truth(job->root, "distinct", &job->job.distinct, ret_error);
    }
    if (r == 0) {
        r = read_truth(job->root, "batchable", &job->job.batchable, ret_error);
    }
    if (r == 0) {
        r = read_body(job->root, job, ret_error);
    }
    if (r == 0 && job->job.prompt == NULL && job->job.body == NULL) {
        r = refuse(ret_error, "prompt: missing; a line needs \"prompt\", \"text\" or \"body\"");
    }
    return r;
}

int line_job_read(const char *text, size_t bytes, const struct tiermq_job *defaults,
                  struct line_job *ret_job, char *ret_error)
{
    json_error_t error;
    CLEANUP(line_job_finish) struct line_job job = {.job = *defaults};
    job.root = json_loadb(text, bytes, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
    if (job.root == NULL) {
        return refuse(ret_error, "not JSON: column %d: %s", error.column, error.text);
    }
    int r = 0;
    if (json_is_string(job.root)) {
        job.job.prompt = json_string_value(job.root);
    } else if (json_is_object(job.root)) {
        r = read_object(&job, ret_error);
    } else {
        r = refuse(ret_error, "must be an object, or a string that is the prompt");
    }
    if (r == 0) {
        *ret_job = job;
        job = (struct line_job){0};
    } else if (job.reference != NULL) {
        *ret_job = (struct line_job){0};
        /* Also a line that is refused gives its id back. */
        ret_job->root = TAKE(job.root);
        ret_job->reference = job.reference;
    }
    return r;
}

void line_job_finish(struct line_job *job)
{
    json_decref(job->root);
    free(job->body);
    *job = (struct line_job){0};
}
