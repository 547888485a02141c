/*
 * What the client library and its command line read: byte 0 chooses a line of a user's file, a
 * request's body, a worker's answer, a chunk of a stream, or a duration as in "dead list --older";
 * the rest are its bytes.
 */
#include <errno.h>
#include <string.h>
#include "client/answer.h"
#include "client/cli/cli.h"
#include "client/cli/lines.h"
#include "client/request.h"
#include "tests/fuzz/fuzz.h"

enum what { LINE, BODY, ANSWER, CHUNK, DURATION, WHATS };

static void make_request(const struct tiermq_job *job)
{
    struct request *request = NULL;
    char error[REQUEST_ERROR_BYTES] = "";
    const int r = request_create(job, "default", &request, error);
    must_hold((r == 0) == (request != NULL));
    must_hold(r == 0 || (r == -EINVAL && error[0] != '\0'));
    must_hold(r < 0 || (request->route[0] != '\0' && request->tier[0] != '\0' && request->payload != NULL));
    request_destroy(&request);
}

static void read_line(const char *text, size_t bytes)
{
    const struct tiermq_job defaults = {0};
    struct line_job line = {0};
    char error[LINE_ERROR_BYTES] = "";
    const int r = line_job_read(text, bytes, &defaults, &line, error);
    must_hold(r == 0 || (r == -EINVAL && error[0] != '\0'));
    if (r == 0) {
        must_hold(line.job.prompt != NULL || line.job.body != NULL);
        make_request(&line.job);
    }
    line_job_finish(&line);
}

static void read_answer(const uint8_t *payload, size_t bytes)
{
    Wire__Result result = WIRE__RESULT__INIT;
    struct answer_view view;
    struct tiermq_answer *copy = NULL;
    result.state = WIRE__JOB_STATE__JOB_STATE_SUCCEEDED;
    answer_read(&result, payload, bytes, &view);
    must_hold(view.answer.text != NULL && view.answer.error_text != NULL);
    must_hold((view.answer.body == NULL) == (view.answer.body_bytes == 0));
    if (answer_copy(&view.answer, &copy) == 0) {
        must_hold(strcmp(copy->text, view.answer.text) == 0);
        must_hold(strcmp(copy->near_key, view.answer.near_key) == 0);
        must_hold(copy->cache_age_ms >= 0);
    }
    tiermq_answer_free(&copy);
    answer_view_finish(&view);
}

static void read_chunk(const uint8_t *data, size_t bytes)
{
    char *text = NULL;
    if (tiermq_chunk_text(data, bytes, &text) == 0) {
        must_hold(strlen(text) <= bytes); /* an escape is never shorter than what it stands for */
        free(text);
    }
}

static void read_duration(const uint8_t *data, size_t bytes)
{
    int64_t ms = 0;
    char *text = strndup((const char *)data, bytes);
    must_hold(text != NULL);
    if (cli_read_duration(text, &ms) == 0) {
        must_hold(ms >= 0 && ms <= INT64_MAX / 1000); /* nanoseconds can be made of it */
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0) {
        return 0;
    }
    const uint8_t *rest = data + 1;
    bytes--;
    switch ((enum what)(data[0] % WHATS)) {
    case LINE:
        read_line((const char *)rest, bytes);
        break;
    case BODY:
        make_request(&(struct tiermq_job){.body = rest, .body_bytes = bytes});
        break;
    case ANSWER:
        read_answer(rest, bytes);
        break;
    case CHUNK:
        read_chunk(rest, bytes);
        break;
    case DURATION:
        read_duration(rest, bytes);
        break;
    case WHATS:
        break;
    }
    return 0;
}
