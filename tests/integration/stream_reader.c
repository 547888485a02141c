/*
 * A program that reads streams as test_streaming.py tells it to, by lines: "submit NAME
 * DEADLINE_MS", "pause NAME", "resume NAME", "cancel NAME". It says "chunk NAME BYTES" with the
 * bytes of text so far, and "answer NAME STATE CODE whole|cut", whole when the pieces make up the
 * answer's text. Ends when its input does.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "client/tiermq.h"

enum { STREAMS_MAX = 8, NAME_BYTES = 32, LINE_BYTES = 128 };

struct stream {
    char name[NAME_BYTES];
    tiermq_id id;
    FILE *text;
    char *read;
    size_t read_bytes;
};

static struct stream streams[STREAMS_MAX];
static size_t streams_length;

static void on_chunk(void *context, const tiermq_id *id, const void *data, size_t bytes, bool last)
{
    struct stream *stream = context;
    char *text = NULL;
    (void)id, (void)last;
    if (tiermq_chunk_text(data, bytes, &text) < 0) {
        exit(EXIT_FAILURE);
    }
    fputs(text, stream->text);
    fflush(stream->text);
    free(text);
    printf("chunk %s %zu\n", stream->name, stream->read_bytes);
    fflush(stdout);
}

static void on_answer(void *context, const struct tiermq_answer *answer)
{
    struct stream *stream = context;
    const bool is_whole = strcmp(stream->read, answer->text) == 0;
    printf("answer %s %d %s %s\n", stream->name, answer->state,
           answer->error_code[0] == '\0' ? "-" : answer->error_code, is_whole ? "whole" : "cut");
    fflush(stdout);
}

static struct stream *find(const char *name)
{
    for (size_t i = 0; i < streams_length; i++) {
        if (strcmp(streams[i].name, name) == 0) {
            return &streams[i];
        }
    }
    exit(EXIT_FAILURE);
}

static int submit(struct tiermq *client, const char *name, long deadline_ms)
{
    struct stream *stream = &streams[streams_length++];
    snprintf(stream->name, sizeof(stream->name), "%s", name);
    stream->text = open_memstream(&stream->read, &stream->read_bytes);
    fflush(stream->text);
    const struct tiermq_job job = {.tier = "realtime",
                                   .route = "m",
                                   .prompt = stream->name,
                                   .deadline_ms = deadline_ms,
                                   .stream = true};
    const struct tiermq_callbacks callbacks = {
        .on_chunk = on_chunk, .on_answer = on_answer, .context = stream};
    return tiermq_submit_async(client, &job, &callbacks, &stream->id);
}

static int obey(struct tiermq *client, const char *line)
{
    char verb[16], name[NAME_BYTES];
    long deadline_ms = 0;
    if (sscanf(line, "%15s %31s %ld", verb, name, &deadline_ms) < 2) {
        return -1;
    }
    if (strcmp(verb, "submit") == 0) {
        return streams_length < STREAMS_MAX ? submit(client, name, deadline_ms) : -1;
    }
    const tiermq_id *id = &find(name)->id;
    return strcmp(verb, "pause") == 0    ? tiermq_stream_pause(client, id)
           : strcmp(verb, "resume") == 0 ? tiermq_stream_resume(client, id)
                                         : tiermq_cancel(client, id);
}

int main(int argc, char **argv)
{
    struct tiermq *client = NULL;
    if (argc != 2 || tiermq_connect(&(struct tiermq_options){.brokers = argv[1]}, &client) < 0) {
        return EXIT_FAILURE;
    }
    setvbuf(stdin, NULL, _IONBF, 0); /* poll() sees what is not read */
    char line[LINE_BYTES];
    int r = 0;
    while (r == 0) {
        struct pollfd files[] = {{.fd = 0, .events = POLLIN},
                                 {.fd = tiermq_fd(client), .events = POLLIN}};
        (void)poll(files, 2, tiermq_timeout_ms(client));
        if (files[0].revents != 0) {
            if (fgets(line, sizeof(line), stdin) == NULL) {
                break;
            }
            r = obey(client, line);
        }
        r = r == 0 ? tiermq_dispatch(client, 0) : r;
    }
    if (r < 0) {
        fprintf(stderr, "%s\n", tiermq_last_error(client));
    }
    tiermq_close(&client);
    for (size_t i = 0; i < streams_length; i++) {
        fclose(streams[i].text);
        free(streams[i].read);
    }
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
