#include "client/cli/results.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int results_init(struct results *results, FILE *out, bool is_ordered, size_t window)
{
    *results = (struct results){.out = out, .is_ordered = is_ordered, .window = window};
    results->ring = is_ordered ? calloc(window, sizeof(*results->ring)) : NULL;
    return is_ordered && results->ring == NULL ? -ENOMEM : 0;
}

bool results_has_room(const struct results *results)
{
    return !results->is_ordered || results->reserved - results->next < results->window;
}

uint64_t results_reserve(struct results *results)
{
    assert(results_has_room(results));
    return results->reserved++;
}

static int write_line(struct results *results, char *text)
{
    errno = 0;
    const bool is_written = fputs(text, results->out) >= 0 && fputc('\n', results->out) != EOF;
    free(text);
    if (is_written) {
        return 0;
    }
    return errno != 0 ? -errno : -EIO;
}

int results_write(struct results *results, uint64_t place, char *text)
{
    if (!results->is_ordered) {
        return write_line(results, text);
    }
    results->ring[place % results->window] = text;
    for (;;) {
        char **next = &results->ring[results->next % results->window];
        if (*next == NULL) {
            return 0;
        }
        results->next++;
        int r = write_line(results, TAKE(*next));
        if (r < 0) {
            return r;
        }
    }
}

void results_finish(struct results *results)
{
    for (size_t i = 0; results->ring != NULL && i < results->window; i++) {
        free(results->ring[i]);
    }
    free(results->ring);
    results->ring = NULL;
}
