/*
 * names: the names of routes, pools and tenants as small numbers, so that a job holds none of them.
 *
 * Names come from configuration; one that only a stored record knows is kept too, marked as not configured. A name is never
 * forgotten while the broker runs, so its pointer stays good.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "broker/core/table.h"
#include "common/attributes.h"

enum { NAMES_MAX = UINT16_MAX };

struct name {
    struct table_link link;
    uint16_t index;
    bool is_configured;
    bool is_held;   /* paused: admitted, not dispatched */
    bool is_refused; /* drained: not admitted */
    int64_t opened_ms; /* when it was last held no more */
    char text[];
};

struct names {
    struct table table;
    struct name **items; /* by index */
    size_t length;
};

MUST_USE int names_init(struct names *names, uint64_t seed); /* Errors: -ENOMEM */
void names_finish(struct names *names);
struct name *names_find(const struct names *names, const char *text); /* NULL: unknown */
/* Finds or adds. Errors: -ENOMEM, -ENOBUFS NAMES_MAX are there. */
MUST_USE int names_add(struct names *names, const char *text, struct name **ret_name);
