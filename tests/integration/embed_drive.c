/*
 * embed-drive: the embedder of a configuration, driven from a pipe.
 *
 *   tiermq-embed-drive CONFIG
 *
 * Each line of standard input is a JSON list of calls, each a list of texts, all started at once; a
 * call whose last text is null is cancelled as soon as all are started. Each is answered by a line
 * once all have ended: {"results": [a list of vectors, or an error's number], "stats": {…}}.
 * Standard error begins with a line that says who it is: id, version, dim.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "common/loop.h"
#include "worker/cache/text_embedder.h"

enum { CALLS_MAX = 1024, LINE_BYTES_MAX = 1 << 20 };

struct drive {
    struct loop *loop;
    struct log *log;
    struct text_embedder *embedder;
    size_t waiting;
};

struct asked {
    struct drive *drive;
    size_t length;
    json_t *answer;
    struct text_embedder_call *call;
};

static json_t *vectors_json(const struct drive *drive, const float *vectors, size_t length)
{
    json_t *list = json_array();
    for (size_t i = 0; i < length; i++) {
        json_t *vector = json_array();
        for (size_t j = 0; j < drive->embedder->dim; j++) {
            json_array_append_new(vector, json_real((double)vectors[i * drive->embedder->dim + j]));
        }
        json_array_append_new(list, vector);
    }
    return list;
}

static void answered(void *context, int result, const float *vectors)
{
    struct asked *asked = context;
    asked->answer = result < 0 ? json_integer(result)
                               : vectors_json(asked->drive, vectors, asked->length);
    asked->call = NULL;
    asked->drive->waiting--;
}

static void ask_now(struct drive *drive, struct asked *asked, const struct text_view *views)
{
    float *vectors = calloc(asked->length * drive->embedder->dim + 1, sizeof(float));
    const int r = text_embedder_embed(drive->embedder, views, asked->length, vectors);
    asked->answer = r < 0 ? json_integer(r) : vectors_json(drive, vectors, asked->length);
    free(vectors);
}

static void ask(struct drive *drive, struct asked *asked, const json_t *texts)
{
    struct text_view views[TEXT_EMBEDDER_TEXTS_MAX + 1];
    for (size_t i = 0; i < json_array_size(texts) && json_is_string(json_array_get(texts, i)) &&
                       i < ARRAY_LENGTH(views); i++) {
        const json_t *text = json_array_get(texts, i);
        views[asked->length++] = (struct text_view){json_string_value(text), json_string_length(text)};
    }
    asked->drive = drive;
    if (text_embedder_is_immediate(drive->embedder)) {
        ask_now(drive, asked, views);
        return;
    }
    const int r = text_embedder_start(drive->embedder, views, asked->length, answered, asked, &asked->call);
    if (r < 0) {
        asked->answer = json_integer(r);
    } else {
        drive->waiting++;
    }
}

static void cancel(struct drive *drive, struct asked *asked)
{
    if (asked->call != NULL) {
        text_embedder_cancel(&asked->call);
        asked->answer = json_null();
        drive->waiting--;
    }
}

static json_t *stats_json(const struct drive *drive)
{
    struct text_embedder_stats stats;
    text_embedder_read_stats(drive->embedder, &stats);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "texts", (json_int_t)stats.texts,
                     "texts_cached", (json_int_t)stats.texts_cached, "requests", (json_int_t)stats.requests,
                     "failures", (json_int_t)stats.failures, "failures_timeout", (json_int_t)stats.failures_timeout,
                     "failures_status", (json_int_t)stats.failures_status, "failures_invalid",
                     (json_int_t)stats.failures_invalid, "refused", (json_int_t)stats.refused, "dropped",
                     (json_int_t)stats.dropped, "texts_waiting", (json_int_t)stats.texts_waiting, "vectors",
                     (json_int_t)stats.vectors, "is_open", (int)stats.is_open);
}

/* Errors: -errno of the loop. */
static int run(struct drive *drive, const json_t *calls)
{
    static struct asked asked[CALLS_MAX];
    const size_t length = json_array_size(calls) < CALLS_MAX ? json_array_size(calls) : CALLS_MAX;
    json_t *results = json_array();
    memset(asked, 0, sizeof(asked));
    int r = loop_turn(drive->loop, 0); /* time has passed since the last line */
    for (size_t i = 0; i < length; i++) {
        ask(drive, &asked[i], json_array_get(calls, i));
    }
    for (size_t i = 0; i < length; i++) {
        const json_t *texts = json_array_get(calls, i);
        if (json_is_null(json_array_get(texts, json_array_size(texts) - 1))) {
            cancel(drive, &asked[i]);
        }
    }
    while (drive->waiting > 0 && r == 0) {
        r = loop_turn(drive->loop, -1);
    }
    for (size_t i = 0; i < length; i++) {
        json_array_append_new(results, asked[i].answer);
    }
    json_t *line = json_pack("{s:o, s:o}", "results", results, "stats", stats_json(drive));
    json_dumpf(line, stdout, JSON_COMPACT);
    json_decref(line);
    putchar('\n');
    fflush(stdout);
    return r;
}

static int open_drive(const struct config *config, struct drive *drive)
{
    char error[TEXT_EMBEDDER_ERROR_BYTES] = "";
    int r = loop_create(&drive->loop);
    r = r < 0 ? r : log_create("embed-drive", LOG_DEBUG, STDERR_FILENO, &drive->log);
    r = r < 0 ? r
              : text_embedder_create(&config->cache.embedder, drive->loop, drive->log,
                                     &drive->embedder, error);
    if (r < 0) {
        fprintf(stderr, "embed-drive: %s: %s\n", strerror(-r), error);
        return r;
    }
    fprintf(stderr, "{\"id\":\"%s\",\"version\":\"%016" PRIx64 "\",\"dim\":%" PRIu32 "}\n", drive->embedder->id,
            drive->embedder->version, drive->embedder->dim);
    return 0;
}

int main(int argc, char **argv)
{
    static char line[LINE_BYTES_MAX];
    struct config *config = NULL;
    struct config_errors errors = {0};
    struct drive drive = {0};
    if (argc != 2 || config_read(argv[1], &config, &errors) < 0) {
        fprintf(stderr, "embed-drive: %s\n", errors.length > 0 ? errors.items[0].text : "usage: embed-drive CONFIG");
        config_errors_finish(&errors);
        return EXIT_FAILURE;
    }
    int r = open_drive(config, &drive);
    while (r == 0 && fgets(line, sizeof(line), stdin) != NULL) {
        json_t *calls = json_loads(line, JSON_ALLOW_NUL, NULL);
        r = json_is_array(calls) ? run(&drive, calls) : -EINVAL;
        json_decref(calls);
    }
    text_embedder_destroy(&drive.embedder);
    log_destroy(&drive.log);
    loop_destroy(&drive.loop);
    config_destroy(&config);
    return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
