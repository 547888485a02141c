/*
 * lines: jobs from JSON lines, one at a time, whatever the length of the file.
 *
 * A line is a JSON object, or a JSON string that is the prompt. Members (all but one of the first three may be left out; others
 * are ignored, so that data files can be used as they are):
 *   prompt, text   the prompt           body        the OpenAI-format request, an object
 *   tier, route, model (another word for route), pool, operation
 *   id, custom_id  given back as `id` in the result; one that is a UUID is the job's id, too
 *   priority, deadline, delay ("30s", or seconds), idempotency_key, max_tokens, estimated_tokens, trace_parent
 *   residency, task, prompt_complexity (1 to 255)
 *   distinct, batchable (true or false)
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "client/tiermq.h"
#include "common/attributes.h"

enum { LINE_BYTES_MAX = 80 << 20, LINE_BUFFER_BYTES = 64 << 10, LINE_ERROR_BYTES = 400 };

/* Begin with .fd set and the rest zeros. */
struct line_reader {
    int fd;          /* not owned */
    char *text;      /* of the last line, NUL-terminated, without its end; owned */
    size_t bytes;
    size_t capacity;
    uint64_t number; /* of the last line, from 1 */
    uint64_t bytes_read;
    bool is_too_long; /* the last line was longer than LINE_BYTES_MAX; its rest was skipped */
    bool is_partial;  /* text holds the beginning of a line */
    bool is_at_end;
    size_t at, end;   /* what of `buffer` is not used yet */
    char buffer[LINE_BUFFER_BYTES];
};

/*
 * The next line that is not blank, without waiting for it. Returns 1; 0 at the end.
 * Errors: -EAGAIN none is there yet: poll fd; -errno of reading; -ENOMEM.
 */
MUST_USE int line_reader_next(struct line_reader *reader);
void line_reader_finish(struct line_reader *reader);

/* A line understood. Strings of `job` lie in `root` and `body`. */
struct line_job {
    json_t *root;           /* owned */
    const json_t *reference; /* the line's id; NULL: none */
    char *body;             /* owned; NULL: a prompt */
    struct tiermq_job job;
};

/*
 * `defaults` stands for what the line leaves out.
 * Errors: -EINVAL, ret_error (LINE_ERROR_BYTES) names the member and a remedy, and ret_job has the reference alone; -ENOMEM.
 */
MUST_USE int line_job_read(const char *text, size_t bytes, const struct tiermq_job *defaults,
                           struct line_job *ret_job, char *ret_error);
void line_job_finish(struct line_job *job);
