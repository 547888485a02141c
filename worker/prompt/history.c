#include "worker/prompt/history.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "worker/prompt/messages.h"

/* By message: its tokens and its turn. What comes before the first turn belongs to it. */
struct history {
    uint64_t *tokens;
    size_t *turns;
    size_t length;
    size_t turns_length;
    uint64_t sum;
};

static void history_finish(struct history *history)
{
    free(history->tokens);
    free(history->turns);
}

/* System messages stay wherever they are, so they are of no turn's account. */
static int history_read(const json_t *messages, const struct bpe *bpe, struct history *history)
{
    const size_t length = json_array_size(messages);
    history->tokens = calloc(length + 1, sizeof(*history->tokens));
    history->turns = calloc(length + 1, sizeof(*history->turns));
    if (history->tokens == NULL || history->turns == NULL) {
        return -ENOMEM;
    }
    bool is_begun = false;
    for (size_t i = 0; i < length; i++) {
        const json_t *message = json_array_get(messages, i);
        if (message_is(message, "user")) {
            history->turns_length += is_begun || history->turns_length == 0 ? 1 : 0;
            is_begun = false;
        }
        is_begun = is_begun || (!message_is(message, "user") && !message_is_system(message) &&
                                history->turns_length > 0);
        history->turns[i] = history->turns_length == 0 ? 0 : history->turns_length - 1;
        history->tokens[i] = message_tokens(message, bpe);
        history->sum += history->tokens[i];
    }
    history->length = length;
    return 0;
}

/* How many turns have to go. */
static size_t turns_to_cut(const json_t *messages, const struct history *history,
                           uint64_t tokens_max)
{
    const size_t most =
        history->turns_length > HISTORY_TURNS_KEPT ? history->turns_length - HISTORY_TURNS_KEPT : 0;
    uint64_t left = history->sum;
    size_t cut = 0;
    size_t at = 0;
    while (left > tokens_max && cut < most) {
        for (; at < history->length && history->turns[at] <= cut; at++) {
            left -= message_is_system(json_array_get(messages, at)) ? 0 : history->tokens[at];
        }
        cut++;
    }
    const size_t step = (cut + HISTORY_TURNS_STEP - 1) / HISTORY_TURNS_STEP * HISTORY_TURNS_STEP;
    return step <= most ? step : cut;
}

int history_trim(json_t *messages, uint64_t tokens_max, const struct bpe *bpe, uint64_t *ret_saved)
{
    struct history history = {.length = 0};
    int r = history_read(messages, bpe, &history);
    *ret_saved = 0;
    if (r == 0) {
        const size_t cut = turns_to_cut(messages, &history, tokens_max);
        for (size_t i = history.length; i-- > 0;) {
            if (history.turns[i] < cut && !message_is_system(json_array_get(messages, i))) {
                (void)json_array_remove(messages, i);
                *ret_saved += history.tokens[i];
            }
        }
    }
    history_finish(&history);
    return r;
}
