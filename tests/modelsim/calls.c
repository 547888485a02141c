#include "tests/modelsim/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/clock.h"

struct calls {
    int fd;
    uint64_t next;
};

int calls_open(const char *path, struct calls **ret_calls)
{
    struct calls *calls = calloc(1, sizeof(*calls));
    if (calls == NULL) {
        return -ENOMEM;
    }
    calls->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (calls->fd < 0) {
        const int error = errno;
        free(calls);
        return -error;
    }
    /* Unique over restarts: the clock goes on, and nobody starts a simulator twice in a nanosecond.
     */
    calls->next = (uint64_t)clock_monotonic_ns();
    *ret_calls = calls;
    return 0;
}

void calls_close(struct calls **calls)
{
    if (*calls != NULL) {
        close((*calls)->fd);
        free(*calls);
        *calls = NULL;
    }
}

/* Takes: line. A line that cannot be written leaves a hole in somebody's proof: no reason to go on.
 */
static void append(struct calls *calls, json_t *line)
{
    char *text = line == NULL ? NULL : json_dumps(line, JSON_COMPACT);
    char *ended = NULL;
    if (text == NULL || asprintf(&ended, "%s\n", text) < 0 ||
        write(calls->fd, ended, strlen(ended)) != (ssize_t)strlen(ended)) {
        perror("tiermq-modelsim: --calls");
        exit(EXIT_FAILURE);
    }
    free(ended);
    free(text);
    json_decref(line);
}

uint64_t calls_began(struct calls *calls, const char *key, const char *authorization)
{
    if (calls == NULL) {
        return 0;
    }
    static const char bearer[] = "Bearer ";
    const char *account = authorization == NULL ? "" : authorization;
    if (strncmp(account, bearer, strlen(bearer)) == 0) {
        account += strlen(bearer);
    }
    const uint64_t call = calls->next++;
    append(calls, json_pack("{s:I, s:I, s:s, s:s, s:s}", "at_ms", (json_int_t)clock_monotonic_ms(),
                            "call", (json_int_t)call, "event", "began", "key",
                            key != NULL ? key : "", "account", account));
    return call;
}

void calls_ended(struct calls *calls, uint64_t call, const char *event, const char *model,
                 const char *fault)
{
    if (calls != NULL) {
        append(calls, json_pack("{s:I, s:I, s:s, s:s, s:s}", "at_ms",
                                (json_int_t)clock_monotonic_ms(), "call", (json_int_t)call, "event",
                                event, "model", model != NULL ? model : "", "fault", fault));
    }
}
