/*
 * attributes: the few compiler attributes and ownership helpers used everywhere.
 *
 * CLEANUP(destroy) releases what a function owns on every way out; TAKE(pointer) gives it up.
 */
#pragma once
#include <stddef.h>

#define MUST_USE          __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define CLEANUP(destroy)  __attribute__((cleanup(destroy)))
#define ARRAY_LENGTH(a)   (sizeof(a) / sizeof((a)[0]))

/* The struct of type `type` whose field `field` is at `pointer`. */
#define CONTAINER_OF(pointer, type, field)                                                         \
    ((type *)(void *)((char *)(pointer)-offsetof(type, field)))

/* Hands a pointer over and leaves NULL behind, so that a cleanup finds nothing to release. */
#define TAKE(pointer)                                                                              \
    ({                                                                                             \
        __typeof__(pointer) taken_ = (pointer);                                                    \
        (pointer) = NULL;                                                                          \
        taken_;                                                                                    \
    })
