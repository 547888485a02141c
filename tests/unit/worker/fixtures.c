#include "tests/unit/worker/fixtures.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/bytes.h"
#include "worker/provider/assembly.h"
#include "worker/provider/sse.h"

enum { PATH_BYTES = 512, BODY_BYTES_MAX = 1 << 20, CONTEXT_LINES = 3 };

/* ---- files ---- */

char *fixture_text(const char *path)
{
    const char *folder = getenv("TIERMQ_FIXTURES");
    char whole[PATH_BYTES];
    cr_assert_not_null(folder, "TIERMQ_FIXTURES is not set: run it with meson test");
    (void)snprintf(whole, sizeof(whole), "%s/%s", folder, path);
    FILE *file = fopen(whole, "rb");
    cr_assert_not_null(file, "%s cannot be opened", whole);
    struct bytes text = {.bytes_max = BODY_BYTES_MAX};
    char piece[4096];
    size_t got;
    while ((got = fread(piece, 1, sizeof(piece), file)) > 0) {
        cr_assert_eq(bytes_append(&text, piece, got), 0, "%s is too large", whole);
    }
    cr_assert_eq(ferror(file), 0, "%s cannot be read", whole);
    cr_assert_eq(fclose(file), 0);
    char *copy = strndup(text.data == NULL ? "" : text.data, text.length);
    cr_assert_not_null(copy);
    bytes_finish(&text);
    return copy;
}

json_t *fixture_json(const char *path)
{
    char *text = fixture_text(path);
    json_error_t error;
    json_t *document = json_loads(text, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    cr_assert_not_null(document, "%s:%d: %s", path, error.line, error.text);
    free(text);
    return document;
}

static void write_path(char *ret_path, const char *dialect, const char *name, const char *kind,
                       const char *ending)
{
    (void)snprintf(ret_path, PATH_BYTES, "%s/%s.%s.%s", dialect, name, kind, ending);
}

static json_t *load_pair_member(const char *dialect, const char *name, const char *kind,
                                const char *form)
{
    char path[PATH_BYTES];
    char ending[64];
    (void)snprintf(ending, sizeof(ending), "%s.json", form);
    write_path(path, dialect, name, kind, ending);
    return fixture_json(path);
}

/* ---- comparing ---- */

/* Where both texts stop to be the same, CONTEXT_LINES lines before. */
static size_t difference_begin(const char *one, const char *other)
{
    size_t at = 0;
    while (one[at] != '\0' && one[at] == other[at]) {
        at++;
    }
    for (int lines = 0; at > 0; at--) {
        lines += one[at - 1] == '\n';
        if (lines > CONTEXT_LINES) {
            break;
        }
    }
    return at;
}

void expect_json(const json_t *got, const json_t *wanted, const char *what)
{
    if (json_equal(got, wanted)) {
        return;
    }
    const size_t flags = JSON_INDENT(1) | JSON_SORT_KEYS | JSON_ENCODE_ANY;
    char *got_text = json_dumps(got, flags);
    char *wanted_text = json_dumps(wanted, flags);
    cr_assert(got_text != NULL && wanted_text != NULL, "%s: one of them is no JSON", what);
    const size_t begin = difference_begin(got_text, wanted_text);
    cr_assert_fail("%s\n--- got, from the first difference on:\n%.600s\n--- wanted:\n%.600s", what,
                   got_text + begin, wanted_text + begin);
}

/* ---- the three kinds ---- */

void expect_fixture_request(const struct protocol *protocol, const char *dialect, const char *name,
                            const struct provider_request *request)
{
    char path[PATH_BYTES];
    write_path(path, dialect, name, "request", "openai.json");
    char *body = fixture_text(path);
    struct provider_request whole = *request;
    whole.body = body;
    whole.body_bytes = strlen(body);
    struct bytes out = {.bytes_max = BODY_BYTES_MAX};
    struct outcome outcome = {.code = ""};
    int r = protocol->write_body(&whole, &out, &outcome);
    cr_assert_eq(r, 0, "%s: %s: %s", path, strerror(-r), outcome.text);
    json_t *got = json_loadb(out.data, out.length, JSON_REJECT_DUPLICATES, NULL);
    json_t *wanted = load_pair_member(dialect, name, "request", dialect);
    expect_json(got, wanted, path);
    json_decref(got);
    json_decref(wanted);
    bytes_finish(&out);
    free(body);
}

void expect_fixture_reply(const struct protocol *protocol, const char *dialect, const char *name)
{
    json_t *reply = load_pair_member(dialect, name, "reply", dialect);
    json_t *wanted = load_pair_member(dialect, name, "reply", "openai");
    json_t *got = NULL;
    if (protocol->read_answer == NULL) {
        got = json_incref(reply);
    } else {
        cr_assert_eq(protocol->read_answer(reply, &got), 0, "%s/%s", dialect, name);
    }
    expect_json(got, wanted, name);
    json_decref(reply);
    json_decref(wanted);
    json_decref(got);
}

struct replay {
    const struct protocol *protocol;
    const char *path;
    struct protocol_stream stream;
    const char *wanted; /* the lines that are still to come */
    int line;
};

/* The next line of what is wanted, a reference; NULL behind the last. */
static json_t *next_wanted(struct replay *replay)
{
    const size_t bytes = strcspn(replay->wanted, "\n");
    if (bytes == 0) {
        return NULL;
    }
    json_error_t error;
    json_t *line = json_loadb(replay->wanted, bytes, JSON_REJECT_DUPLICATES, &error);
    replay->line++;
    cr_assert_not_null(line, "%s, line %d wanted: %s", replay->path, replay->line, error.text);
    replay->wanted += replay->wanted[bytes] == '\n' ? bytes + 1 : bytes;
    return line;
}

static int event_arrived(void *context, const char *name, const char *data, size_t bytes)
{
    struct replay *replay = context;
    json_t *chunk = NULL;
    struct outcome outcome = {.code = ""};
    int r = replay->protocol->read_event(&replay->stream, name, data, bytes, &chunk, &outcome);
    cr_assert_eq(r, 0, "%s: %s: %s", replay->path, data, outcome.text);
    if (chunk == NULL) {
        return 0;
    }
    json_t *wanted = next_wanted(replay);
    char *text = json_dumps(chunk, JSON_COMPACT);
    char what[PATH_BYTES];
    cr_assert_not_null(wanted, "%s: one chunk more than wanted: %s", replay->path, text);
    (void)snprintf(what, sizeof(what), "%s, chunk %d", replay->path, replay->line);
    expect_json(chunk, wanted, what);
    free(text);
    json_decref(wanted);
    json_decref(chunk);
    return 0;
}

void expect_fixture_stream(const struct protocol *protocol, const char *dialect, const char *name)
{
    char path[PATH_BYTES];
    char ending[64];
    (void)snprintf(ending, sizeof(ending), "%s.sse", dialect);
    write_path(path, dialect, name, "stream", ending);
    char *events = fixture_text(path);
    char wanted_path[PATH_BYTES];
    write_path(wanted_path, dialect, name, "stream", "openai.jsonl");
    char *wanted = fixture_text(wanted_path);
    struct replay replay = {.protocol = protocol, .path = path, .wanted = wanted};
    struct sse sse;
    sse_init(&sse, BODY_BYTES_MAX, event_arrived, &replay);
    cr_assert_eq(sse_feed(&sse, events, strlen(events)), 0, "%s", path);
    cr_assert_eq(replay.wanted[0], '\0', "%s: missing: %s", path, replay.wanted);
    cr_assert(replay.stream.is_ended, "%s: the stream is not ended", path);
    sse_finish(&sse);
    protocol_stream_finish(&replay.stream);
    free(events);
    free(wanted);
}

/* ---- streams to their end ---- */

struct reading {
    const struct protocol *protocol;
    struct protocol_stream stream;
    struct assembly *assembly;
    struct outcome outcome;
};

static int event_read(void *context, const char *name, const char *data, size_t bytes)
{
    struct reading *reading = context;
    json_t *chunk = NULL;
    int r = reading->protocol->read_event(&reading->stream, name, data, bytes, &chunk,
                                          &reading->outcome);
    if (r == 0 && chunk != NULL) {
        r = assembly_add(reading->assembly, chunk);
    }
    json_decref(chunk);
    return r;
}

/* Returns what ended it. */
static int read_stream(struct reading *reading, const char *dialect, const char *name)
{
    char path[PATH_BYTES];
    char ending[64];
    (void)snprintf(ending, sizeof(ending), "%s.sse", dialect);
    write_path(path, dialect, name, "stream", ending);
    char *events = fixture_text(path);
    struct sse sse;
    cr_assert_eq(assembly_create(OPERATION_CHAT, BODY_BYTES_MAX, &reading->assembly), 0);
    sse_init(&sse, BODY_BYTES_MAX, event_read, reading);
    int r = sse_feed(&sse, events, strlen(events));
    sse_finish(&sse);
    free(events);
    return r;
}

void expect_fixture_answer(const struct protocol *protocol, const char *dialect, const char *name)
{
    struct reading reading = {.protocol = protocol, .outcome = {.code = ""}};
    cr_assert_eq(read_stream(&reading, dialect, name), 0, "%s: %s", name, reading.outcome.text);
    cr_expect(reading.stream.is_ended || assembly_is_complete(reading.assembly), "%s", name);
    json_t *answer = NULL;
    cr_assert_eq(assembly_answer(reading.assembly, &answer), 0);
    json_t *wanted = load_pair_member(dialect, name, "stream", "answer");
    expect_json(answer, wanted, name);
    outcome_from_reply(200, OPERATION_CHAT, answer, 0, &reading.outcome);
    cr_expect_eq(reading.outcome.kind, WIRE__ATTEMPT_OUTCOME__ATTEMPT_ANSWERED, "%s", name);
    json_decref(answer);
    json_decref(wanted);
    assembly_destroy(&reading.assembly);
    protocol_stream_finish(&reading.stream);
}

struct outcome fixture_stream_outcome(const struct protocol *protocol, const char *dialect,
                                      const char *name)
{
    struct reading reading = {.protocol = protocol, .outcome = {.code = ""}};
    cr_assert_eq(read_stream(&reading, dialect, name), -ECONNABORTED, "%s", name);
    assembly_destroy(&reading.assembly);
    protocol_stream_finish(&reading.stream);
    return reading.outcome;
}

struct outcome fixture_error_outcome(const char *dialect, const char *name, long status)
{
    char path[PATH_BYTES];
    struct outcome outcome = {.code = ""};
    write_path(path, dialect, name, "error", "json");
    json_t *body = fixture_json(path);
    outcome_from_reply(status, OPERATION_CHAT, body, 0, &outcome);
    json_decref(body);
    return outcome;
}
