/* A first program: it knows the installed header and nothing else. See docs/client.md. */
#include <stdio.h>
#include <stdlib.h>
#include <tiermq.h>

int main(int argc, char **argv)
{
    struct tiermq *client = NULL;
    struct tiermq_answer *answer = NULL;
    const char *brokers = argc > 1 ? argv[1] : NULL; /* NULL: tcp://127.0.0.1:7700 */

    if (tiermq_connect(&(struct tiermq_options){.brokers = brokers}, &client) < 0) {
        fprintf(stderr, "not a list of brokers: %s\n", brokers);
        return EXIT_FAILURE;
    }
    const struct tiermq_job job = {.tier = "realtime", .prompt = "What is a queue good for?"};
    int r = tiermq_call(client, &job, 5000, &answer);
    if (r < 0) {
        fprintf(stderr, "no answer: %s\n", tiermq_last_error(client));
    } else if (answer->state != TIERMQ_SUCCEEDED) {
        fprintf(stderr, "%s: %s\n", answer->error_code, answer->error_text);
    } else {
        printf("%s\n", answer->text);
    }
    const int code = r == 0 && answer->state == TIERMQ_SUCCEEDED ? EXIT_SUCCESS : EXIT_FAILURE;
    tiermq_answer_free(&answer);
    tiermq_close(&client);
    return code;
}
