#include "worker/cache/text_embedder.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "common/config.h"
#include "worker/cache/embed_http.h"
#include "worker/cache/embed_static.h"

int text_embedder_create(const struct config_embedder *config, struct loop *loop, struct log *log,
                         struct text_embedder **ret_embedder,
                         char ret_error[TEXT_EMBEDDER_ERROR_BYTES])
{
    const struct embed_http_options http = {
        .base_url = config->base_url,
        .model = config->model,
        .api_key = config->api_key,
        .dim = config->dim,
        .asks_for_dim = config->asks_for_dim == SWITCH_ON,
        .batch_max = config->batch_max,
        .wait_ms = config->batch_wait_ms,
        .timeout_ms = config->timeout_ms,
        .vectors_max = config->vectors_max,
    };
    ret_error[0] = '\0';
    switch (config->kind) {
    case EMBEDDER_BUILTIN:
        return -ENOTSUP;
    case EMBEDDER_STATIC:
        return embed_static_create(config->path, ret_embedder, ret_error);
    case EMBEDDER_HTTP:
        return embed_http_create(&http, loop, log, ret_embedder);
    }
    return -EINVAL;
}

void text_embedder_destroy(struct text_embedder **embedder)
{
    struct text_embedder *old = TAKE(*embedder);
    if (old != NULL) {
        old->class->destroy(old);
    }
}

void text_embedder_name(const struct text_embedder *embedder, char ret_name[TEXT_EMBEDDER_NAME_BYTES])
{
    (void)snprintf(ret_name, TEXT_EMBEDDER_NAME_BYTES, "%s/%016llx", embedder->id,
                   (unsigned long long)embedder->version);
}

bool text_embedder_is_immediate(const struct text_embedder *embedder)
{
    return embedder->class->embed != NULL;
}

static int check_texts(const struct text_view *texts, size_t length)
{
    if (length > TEXT_EMBEDDER_TEXTS_MAX) {
        return -E2BIG;
    }
    for (size_t i = 0; i < length; i++) {
        if (texts[i].bytes > TEXT_EMBEDDER_TEXT_BYTES_MAX) {
            return -E2BIG;
        }
    }
    return 0;
}

int text_embedder_embed(struct text_embedder *embedder, const struct text_view *texts,
                        size_t length, float *ret_vectors)
{
    assert(embedder->class->embed != NULL);
    const int r = check_texts(texts, length);
    return r < 0 ? r : embedder->class->embed(embedder, texts, length, ret_vectors);
}

int text_embedder_start(struct text_embedder *embedder, const struct text_view *texts,
                        size_t length, text_embedder_fn *done, void *context,
                        struct text_embedder_call **ret_call)
{
    assert(embedder->class->start != NULL);
    const int r = check_texts(texts, length);
    return r < 0 ? r : embedder->class->start(embedder, texts, length, done, context, ret_call);
}

void text_embedder_cancel(struct text_embedder_call **call)
{
    struct text_embedder_call *old = TAKE(*call);
    if (old != NULL) {
        old->embedder->class->cancel(old);
    }
}

void text_embedder_read_stats(const struct text_embedder *embedder,
                              struct text_embedder_stats *ret_stats)
{
    embedder->class->read_stats(embedder, ret_stats);
}
