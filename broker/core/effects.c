#include "broker/core/effects.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/arena.h"

enum {
    EFFECTS_FIRST = 1024,
    EFFECTS_SPARE = 64,       /* kept free by effects_reserve(), so that a refusal always fits */
    EFFECTS_KEPT_MAX = 16384, /* a larger array is given back after its turn */
    ARENA_BYTES_MAX = 256 << 20,
    RESERVE_BYTES = 256 << 10, /* for what is already under way when memory runs out */
    TEXT_BYTES_MAX = 1024,
};

struct effects {
    struct effect *items;
    size_t length;
    size_t capacity;
    uint64_t batch;
    bool has_records;
    bool is_urgent;
    struct arena *arena;
    size_t arena_bytes; /* taken of it by effects_alloc() */
    unsigned char *reserve;
    size_t reserve_used;
};

int effects_create(struct effects **ret_effects)
{
    CLEANUP(effects_destroy) struct effects *effects = calloc(1, sizeof(*effects));
    if (effects == NULL) {
        return -ENOMEM;
    }
    int r = arena_create(ARENA_BYTES_MAX, &effects->arena);
    if (r < 0) {
        return r;
    }
    effects->items = malloc(EFFECTS_FIRST * sizeof(*effects->items));
    effects->reserve = malloc(RESERVE_BYTES);
    if (effects->items == NULL || effects->reserve == NULL) {
        return -ENOMEM;
    }
    effects->capacity = EFFECTS_FIRST;
    *ret_effects = TAKE(effects);
    return 0;
}

static struct blob **effect_blob(struct effect *effect)
{
    if (effect->kind == EFFECT_RESULT) {
        return &effect->as.result.payload;
    }
    if (effect->kind == EFFECT_DISPATCH) {
        return &effect->as.dispatch.payload;
    }
    if (effect->kind == EFFECT_CACHE_EVIDENCE) {
        return &effect->as.cache_evidence.packed;
    }
    if (effect->kind == EFFECT_CHUNK) {
        return &effect->as.chunk.data;
    }
    return effect->kind == EFFECT_PUT ? &effect->as.put.blob : NULL;
}

static void release_blobs(struct effects *effects)
{
    for (size_t i = 0; i < effects->length; i++) {
        struct blob **blob = effect_blob(&effects->items[i]);
        if (blob != NULL) {
            blob_unref(blob);
        }
    }
    effects->length = 0;
}

void effects_destroy(struct effects **effects)
{
    struct effects *dead = TAKE(*effects);
    if (dead == NULL) {
        return;
    }
    release_blobs(dead);
    arena_destroy(&dead->arena);
    free(dead->items);
    free(dead->reserve);
    free(dead);
}

static void shrink(struct effects *effects)
{
    struct effect *items = realloc(effects->items, EFFECTS_KEPT_MAX * sizeof(*items));
    if (items != NULL) {
        effects->items = items;
        effects->capacity = EFFECTS_KEPT_MAX;
    }
}

void effects_reset(struct effects *effects, uint64_t batch)
{
    release_blobs(effects);
    arena_reset(effects->arena);
    if (effects->capacity > EFFECTS_KEPT_MAX) {
        shrink(effects);
    }
    effects->batch = batch;
    effects->arena_bytes = 0;
    effects->reserve_used = 0;
    effects->has_records = false;
    effects->is_urgent = false;
}

size_t effects_length(const struct effects *effects)
{
    return effects->length;
}

struct effect *effects_at(struct effects *effects, size_t index)
{
    return &effects->items[index];
}

bool effects_have_records(const struct effects *effects)
{
    return effects->has_records;
}

bool effects_are_urgent(const struct effects *effects)
{
    return effects->is_urgent;
}

static bool grow(struct effects *effects, size_t needed)
{
    size_t capacity = effects->capacity * 2;
    while (capacity < needed) {
        capacity *= 2;
    }
    struct effect *items = reallocarray(effects->items, capacity, sizeof(*items));
    if (items == NULL) {
        return false;
    }
    effects->items = items;
    effects->capacity = capacity;
    return true;
}

bool effects_reserve(struct effects *effects, size_t more)
{
    const size_t needed = effects->length + more + EFFECTS_SPARE;
    if (needed > effects->capacity && !grow(effects, needed)) {
        return false;
    }
    return effects->reserve_used == 0 && effects->arena_bytes < ARENA_BYTES_MAX / 2;
}

struct effect *effects_add(struct effects *effects, enum effect_kind kind, uint64_t peer,
                           uint64_t batch)
{
    if (effects->length == effects->capacity && !grow(effects, effects->length + 1)) {
        abort(); /* see effects_reserve() */
    }
    struct effect *effect = &effects->items[effects->length++];
    memset(effect, 0, sizeof(*effect));
    effect->kind = kind;
    effect->peer = peer;
    effect->batch = batch;
    effects->has_records |=
        kind == EFFECT_PUT || kind == EFFECT_DELETE || kind == EFFECT_DELETE_RANGE;
    return effect;
}

static void *alloc_from_reserve(struct effects *effects, size_t bytes)
{
    const size_t rounded = (bytes + 15) & ~(size_t)15;
    if (rounded > RESERVE_BYTES - effects->reserve_used) {
        abort(); /* see effects_reserve() */
    }
    void *memory = effects->reserve + effects->reserve_used;
    effects->reserve_used += rounded;
    return memory;
}

void *effects_alloc(struct effects *effects, size_t bytes)
{
    void *memory = arena_alloc(effects->arena, bytes);
    effects->arena_bytes += bytes;
    return memory != NULL ? memory : alloc_from_reserve(effects, bytes);
}

const char *effects_text(struct effects *effects, const char *text)
{
    if (text[0] == '\0') {
        return "";
    }
    const size_t bytes = strnlen(text, TEXT_BYTES_MAX);
    char *copy = effects_alloc(effects, bytes + 1);
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    return copy;
}

const char *effects_format(struct effects *effects, const char *format, ...)
{
    char text[TEXT_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return effects_text(effects, text);
}

ProtobufCAllocator *effects_allocator(struct effects *effects)
{
    return arena_protobuf_allocator(effects->arena);
}

uint64_t effects_batch(const struct effects *effects)
{
    return effects->batch;
}

void effects_forget_accepted(struct effects *effects, uint64_t first_batch)
{
    size_t kept = 0;
    for (size_t i = 0; i < effects->length; i++) {
        const struct effect *effect = &effects->items[i];
        if (effect->kind != EFFECT_ACCEPTED || effect->batch < first_batch) {
            effects->items[kept++] = *effect;
        }
    }
    effects->length = kept;
}

void effects_set_urgent(struct effects *effects)
{
    effects->is_urgent = true;
}
