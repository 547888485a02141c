#include "worker/prompt/vocabularies.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/log.h"
#include "worker/prompt/bpe.h"

struct vocabulary {
    char *path;
    struct bpe *bpe; /* NULL: it could not be read */
};

struct vocabularies {
    struct vocabulary *items;
    size_t length;
};

static struct vocabulary *find(const struct vocabularies *vocabularies, const char *path)
{
    for (size_t i = 0; i < vocabularies->length; i++) {
        if (strcmp(vocabularies->items[i].path, path) == 0) {
            return &vocabularies->items[i];
        }
    }
    return NULL;
}

static void release(struct vocabularies *vocabularies)
{
    for (size_t i = 0; i < vocabularies->length; i++) {
        free(vocabularies->items[i].path);
        bpe_destroy(&vocabularies->items[i].bpe);
    }
    free(vocabularies->items);
}

/* Each path once, and nothing read. */
static int list_paths(struct vocabularies *vocabularies, const struct config *config)
{
    vocabularies->items = calloc(config->models_length + 1, sizeof(*vocabularies->items));
    int r = vocabularies->items == NULL ? -ENOMEM : 0;
    for (size_t i = 0; r == 0 && i < config->models_length; i++) {
        const char *path = config->models[i].vocabulary;
        if (path != NULL && path[0] != '\0' && find(vocabularies, path) == NULL) {
            char *kept = strdup(path);
            vocabularies->items[vocabularies->length].path = kept;
            vocabularies->length += kept != NULL ? 1 : 0;
            r = kept == NULL ? -ENOMEM : 0;
        }
    }
    return r;
}

static void read_one(struct vocabulary *vocabulary, struct log *log)
{
    char error[REFUSAL_BYTES] = "";
    int r = bpe_read_file(vocabulary->path, &vocabulary->bpe, error);
    if (r < 0) {
        log_at(log, LOG_ERROR, "a vocabulary cannot be used: tokens are estimated",
               log_text("path", vocabulary->path),
               log_text("error", error[0] != '\0' ? error : strerror(-r)));
    }
}

int vocabularies_follow(struct vocabularies *vocabularies, const struct config *config,
                        struct log *log)
{
    struct vocabularies next = {.length = 0};
    int r = list_paths(&next, config);
    if (r < 0) {
        release(&next);
        return r;
    }
    for (size_t i = 0; i < next.length; i++) {
        struct vocabulary *known = find(vocabularies, next.items[i].path);
        if (known != NULL && known->bpe != NULL) {
            next.items[i].bpe = TAKE(known->bpe);
        } else {
            read_one(&next.items[i], log);
        }
    }
    release(vocabularies);
    *vocabularies = next;
    return 0;
}

int vocabularies_create(const struct config *config, struct log *log,
                        struct vocabularies **ret_vocabularies)
{
    CLEANUP(vocabularies_destroy) struct vocabularies *made = calloc(1, sizeof(*made));
    int r = made == NULL ? -ENOMEM : vocabularies_follow(made, config, log);
    if (r == 0) {
        *ret_vocabularies = TAKE(made);
    }
    return r;
}

void vocabularies_destroy(struct vocabularies **vocabularies)
{
    struct vocabularies *old = TAKE(*vocabularies);
    if (old != NULL) {
        release(old);
        free(old);
    }
}

const struct bpe *vocabularies_find(const struct vocabularies *vocabularies,
                                    const struct config *config, const char *model)
{
    const struct config_model *about = model == NULL ? NULL : config_find_model(config, model);
    const struct vocabulary *item =
        about == NULL || about->vocabulary == NULL ? NULL : find(vocabularies, about->vocabulary);
    return item == NULL ? NULL : item->bpe;
}
