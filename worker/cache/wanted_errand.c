#include "worker/cache/wanted_errand.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/list.h"
#include "common/loop.h"
#include "worker/cache/text_embedder.h"
#include "worker/cache/vector_index.h"
#include "worker/cache/wanted.h"

struct call {
    struct errand *errand;
    struct text_embedder_call *running; /* NULL: it is over, or waits to be tried again */
    bool is_over;
};

struct errand {
    struct list_link link;
    struct wanted_errands *errands;
    struct wanted *wanted;
    struct call calls[WANTED_MAX];
};

struct wanted_errands {
    struct text_embedder *embedder;
    struct loop_timer *timer; /* until calls are tried again */
    wanted_done_fn *done;
    void *context;
    struct list errands;
};

/* ---- one text ---- */

static void keep_vector(const struct text_embedder *embedder, struct wanted_text *text,
                        const float *vector)
{
    text->vector = malloc(embedder->dim);
    if (text->vector == NULL) {
        return;
    }
    text->is_known = true;
    if (!vector_quantise(vector, embedder->dim, text->vector)) {
        free(text->vector);
        text->vector = NULL;
    }
}

static bool is_left_alone(int r)
{
    return r == -EHOSTDOWN || r == -EAGAIN;
}

/* Too long, no UTF-8, or refused by a server that is well: asked again it would be the same. */
static bool is_never_taken(int r)
{
    return r == -E2BIG || r == -EINVAL;
}

static void end_if_over(struct errand *errand);

static void call_failed(struct call *call, int r)
{
    struct wanted_errands *errands = call->errand->errands;
    call->is_over = !is_left_alone(r);
    call->errand->wanted->texts[call - call->errand->calls].is_known = is_never_taken(r);
    if (!call->is_over) {
        loop_timer_set(errands->timer, clock_monotonic_ms() + WANTED_AGAIN_MS);
    }
}

static void call_done(void *context, int result, const float *vectors)
{
    struct call *call = context;
    struct errand *errand = call->errand;
    call->running = NULL;
    if (result < 0) {
        call_failed(call, result);
    } else {
        call->is_over = true;
        keep_vector(errand->errands->embedder, &errand->wanted->texts[call - errand->calls],
                    vectors);
    }
    end_if_over(errand);
}

static void call_start(struct call *call)
{
    struct errand *errand = call->errand;
    const char *text = errand->wanted->texts[call - errand->calls].text;
    const struct text_view view = {.text = text, .bytes = strlen(text)};
    int r =
        text_embedder_start(errand->errands->embedder, &view, 1, call_done, call, &call->running);
    if (r < 0) {
        call_failed(call, r);
    }
}

/* ---- errands ---- */

static void errand_destroy(struct errand *errand)
{
    list_remove(&errand->errands->errands, &errand->link);
    for (size_t i = 0; i < WANTED_MAX; i++) {
        text_embedder_cancel(&errand->calls[i].running);
    }
    wanted_destroy(&errand->wanted);
    free(errand);
}

static void end_if_over(struct errand *errand)
{
    struct wanted_errands *errands = errand->errands;
    for (size_t i = 0; i < errand->wanted->length; i++) {
        if (!errand->calls[i].is_over) {
            return;
        }
    }
    struct wanted *wanted = TAKE(errand->wanted);
    errand_destroy(errand);
    errands->done(errands->context, &wanted);
}

static void errand_go_on(struct errand *errand)
{
    for (size_t i = 0; i < errand->wanted->length; i++) {
        struct call *call = &errand->calls[i];
        if (!call->is_over && call->running == NULL) {
            call_start(call);
        }
    }
    end_if_over(errand);
}

/* Each once, though it may be gone afterwards. */
static void timer_due(void *context)
{
    struct wanted_errands *errands = context;
    for (size_t left = errands->errands.length; left > 0; left--) {
        struct errand *errand = CONTAINER_OF(list_first(&errands->errands), struct errand, link);
        list_remove(&errands->errands, &errand->link);
        list_append(&errands->errands, &errand->link);
        errand_go_on(errand);
    }
}

int wanted_errands_create(struct loop *loop, struct text_embedder *embedder, wanted_done_fn *done,
                          void *context, struct wanted_errands **ret_errands)
{
    CLEANUP(wanted_errands_destroy) struct wanted_errands *errands = calloc(1, sizeof(*errands));
    if (errands == NULL) {
        return -ENOMEM;
    }
    errands->embedder = embedder;
    errands->done = done;
    errands->context = context;
    list_init(&errands->errands);
    int r = loop_timer_create(loop, timer_due, errands, &errands->timer);
    if (r < 0) {
        return r;
    }
    *ret_errands = TAKE(errands);
    return 0;
}

void wanted_errands_destroy(struct wanted_errands **errands)
{
    struct wanted_errands *old = TAKE(*errands);
    if (old == NULL) {
        return;
    }
    while (!list_is_empty(&old->errands)) {
        errand_destroy(CONTAINER_OF(list_first(&old->errands), struct errand, link));
    }
    loop_timer_destroy(&old->timer);
    free(old);
}

void wanted_errands_add(struct wanted_errands *errands, struct wanted **wanted)
{
    struct errand *errand = calloc(1, sizeof(*errand));
    if (errand == NULL) {
        errands->done(errands->context, wanted); /* not answered: they are wanted again */
        return;
    }
    errand->errands = errands;
    errand->wanted = TAKE(*wanted);
    for (size_t i = 0; i < errand->wanted->length; i++) {
        errand->calls[i].errand = errand;
    }
    list_append(&errands->errands, &errand->link);
    errand_go_on(errand);
}
