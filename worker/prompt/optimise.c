#include "worker/prompt/optimise.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "worker/prompt/history.h"
#include "worker/prompt/json_exact.h"
#include "worker/prompt/messages.h"
#include "worker/prompt/passages.h"
#include "worker/prompt/repeats.h"
#include "worker/prompt/space.h"
#include "worker/prompt/token_count.h"
#include "worker/provider/body.h"

const char *lever_name(enum lever lever)
{
    static const char *const names[] = {[LEVER_HISTORY] = "history",
                                        [LEVER_PASSAGES] = "passages",
                                        [LEVER_REPEATS] = "repeats",
                                        [LEVER_SPACE] = "space"};
    return names[lever];
}

bool optimise_rules_are_off(const struct optimise_rules *rules)
{
    return !rules->space && !rules->repeats && !rules->prefix && rules->history_tokens_max == 0 &&
           rules->passages_tokens_max == 0;
}

uint64_t optimised_tokens(const struct optimised *optimised)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < LEVERS; i++) {
        sum += optimised->saved_tokens[i];
    }
    return sum;
}

struct work {
    const struct optimise_rules *rules;
    const struct bpe *bpe;
    json_t *body;
    json_t *messages;  /* of `body` */
    struct bytes text; /* of one text, on its way */
    uint64_t saved;    /* by tidying, this time */
    struct optimised *done;
    bool is_text_changed, are_tools_changed;
};

static int tidy_text(void *context, const struct message_text *text)
{
    struct work *work = context;
    const char *data = json_string_value(text->text);
    const size_t bytes = json_string_length(text->text);
    int r = space_tidy(data, bytes, &work->text);
    /* A text that is white space alone is left: some providers refuse an empty one. */
    if (r < 0 || work->text.length == bytes || work->text.length == 0) {
        return r;
    }
    const uint64_t before = token_count(work->bpe, data, bytes);
    const uint64_t after = token_count(work->bpe, work->text.data, work->text.length);
    if (before <= after) {
        return 0;
    }
    work->saved += before - after;
    return message_set_text(text, work->text.data, work->text.length);
}

/* What the model or a tool wrote is left alone: it may be quoted, or be code that nothing marks. */
static int tidy(struct work *work, uint64_t *ret_saved)
{
    work->saved = 0;
    size_t i;
    json_t *message;
    int r = 0;
    json_array_foreach (work->messages, i, message) {
        if (r == 0 && (message_is(message, "user") || message_is_system(message))) {
            r = message_each_text(message, tidy_text, work);
        }
    }
    *ret_saved = work->saved;
    return r;
}

/* What one round saves is added to the whole. */
static int pull_lever(struct work *work, enum lever lever)
{
    const struct optimise_rules *rules = work->rules;
    uint64_t saved = 0;
    int r = 0;
    switch (lever) {
    case LEVER_HISTORY:
        r = rules->history_tokens_max == 0
                ? 0
                : history_trim(work->messages, rules->history_tokens_max, work->bpe, &saved);
        break;
    case LEVER_PASSAGES:
        r = rules->passages_tokens_max == 0
                ? 0
                : passages_trim(work->messages, rules->passages_tokens_max, work->bpe, &saved);
        break;
    case LEVER_SPACE:
        r = rules->space ? tidy(work, &saved) : 0;
        break;
    case LEVER_REPEATS:
        r = rules->repeats ? repeats_drop(work->messages, work->bpe, &saved) : 0;
        break;
    }
    work->done->saved_tokens[lever] += saved;
    return r;
}

static int pull_levers(struct work *work)
{
    uint64_t before = UINT64_MAX;
    int r = 0;
    for (size_t i = 0; r == 0 && i < OPTIMISE_ROUNDS_MAX && optimised_tokens(work->done) != before;
         i++) {
        before = optimised_tokens(work->done);
        for (size_t lever = 0; r == 0 && lever < LEVERS; lever++) {
            r = pull_lever(work, (enum lever)lever);
        }
    }
    work->is_text_changed = optimised_tokens(work->done) > 0;
    return r;
}

static void order_prefix(struct work *work, const char *tenant)
{
    if (!work->rules->prefix) {
        return;
    }
    char key[PREFIX_KEY_BYTES];
    bool is_long = prefix_key(work->body, tenant, work->bpe, key);
    if (is_long && prefix_sort_tools(json_object_get(work->body, "tools"))) {
        work->are_tools_changed = true;
        is_long = prefix_key(work->body, tenant, work->bpe, key);
    }
    if (is_long) {
        memcpy(work->done->prefix_key, key, sizeof(key));
    }
}

/* The changed members are written anew, the others copied. */
static int write_body(const struct work *work, const void *body, size_t bytes, struct bytes *out)
{
    struct body_member members[2];
    size_t length = 0;
    char *messages = work->is_text_changed ? json_dumps(work->messages, JSON_COMPACT) : NULL;
    char *tools = work->are_tools_changed
                      ? json_dumps(json_object_get(work->body, "tools"), JSON_COMPACT)
                      : NULL;
    const bool is_whole =
        (messages != NULL) == work->is_text_changed && (tools != NULL) == work->are_tools_changed;
    if (messages != NULL) {
        members[length++] = (struct body_member){"messages", messages};
    }
    if (tools != NULL) {
        members[length++] = (struct body_member){"tools", tools};
    }
    int r = is_whole ? body_rewrite(body, bytes, members, length, out) : -ENOMEM;
    free(messages);
    free(tools);
    return r;
}

static int optimise(struct work *work, const char *tenant, const void *body, size_t bytes,
                    struct bytes *out)
{
    work->messages = json_object_get(work->body, "messages");
    if (!json_is_array(work->messages)) {
        return -EINVAL;
    }
    int r = json_is_exact(work->messages) ? pull_levers(work) : 0;
    if (r == 0) {
        order_prefix(work, tenant);
    }
    const uint64_t *saved = work->done->saved_tokens;
    work->done->cut = (struct prompt_cut){
        .history_tokens = saved[LEVER_HISTORY] > 0 ? work->rules->history_tokens_max : 0,
        .passages_tokens = saved[LEVER_PASSAGES] > 0 ? work->rules->passages_tokens_max : 0,
    };
    work->done->is_changed = work->is_text_changed || work->are_tools_changed;
    return r == 0 && work->done->is_changed ? write_body(work, body, bytes, out) : r;
}

int optimise_chat(const struct optimise_rules *rules, const char *tenant, const struct bpe *bpe,
                  const void *body, size_t bytes, struct bytes *out,
                  struct optimised *ret_optimised)
{
    struct optimised done = {.is_changed = false};
    struct work work = {
        .rules = rules, .bpe = bpe, .text = {.bytes_max = OPTIMISE_BYTES_MAX}, .done = &done};
    if (bytes > OPTIMISE_BYTES_MAX) {
        return -EMSGSIZE;
    }
    bytes_clear(out);
    work.body = json_loadb(body, bytes, 0, NULL);
    int r = optimise(&work, tenant, body, bytes, out);
    json_decref(work.body);
    bytes_finish(&work.text);
    if (r == 0) {
        *ret_optimised = done;
    }
    return r;
}
