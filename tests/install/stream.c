/* Reads a stream: it knows the installed header and nothing else. See docs/client.md. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <tiermq.h>

static void on_chunk(void *context, const tiermq_id *id, const void *data, size_t bytes, bool last)
{
    char *text = NULL;
    (void)context, (void)id;
    if (tiermq_chunk_text(data, bytes, &text) == 0) {
        fputs(text, stdout); /* "" where the piece adds no text */
        fflush(stdout);
        free(text);
    }
    if (last) {
        putchar('\n'); /* the stream came through whole; on_answer follows */
    }
}

static void on_answer(void *context, const struct tiermq_answer *answer)
{
    (void)context;
    if (answer->state != TIERMQ_SUCCEEDED) {
        fprintf(stderr, "%s: %s\n", answer->error_code, answer->error_text);
    }
}

int main(int argc, char **argv)
{
    struct tiermq *client = NULL;
    const struct tiermq_options options = {.brokers = argc > 1 ? argv[1] : NULL};
    const struct tiermq_job job = {.tier = "realtime",
                                   .prompt = "What is a queue good for?",
                                   .deadline_ms = 30000, /* also without a broker */
                                   .stream = true};
    const struct tiermq_callbacks callbacks = {.on_chunk = on_chunk, .on_answer = on_answer};
    int r = tiermq_connect(&options, &client);
    if (r < 0) {
        fprintf(stderr, "not a list of brokers: %s\n", options.brokers);
        return EXIT_FAILURE;
    }
    r = tiermq_submit_async(client, &job, &callbacks, NULL);
    while (r == 0 && tiermq_pending(client) > 0) {
        r = tiermq_dispatch(client, -1);
    }
    if (r < 0) {
        fprintf(stderr, "not streamed: %s\n", tiermq_last_error(client));
    }
    tiermq_close(&client);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
