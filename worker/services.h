/*
 * services: what the stages of a worker share. Owned by the worker; the configuration is replaced
 * by a reload.
 */
#pragma once
#include <stddef.h>
#include "common/config.h"

struct cache;
struct log;
struct loop;
struct provider;
struct telemetry;

struct services {
    struct loop *loop;
    struct log *log;
    struct telemetry *telemetry;
    const struct config *config;
    struct cache *cache;               /* NULL: mode off */
    enum config_cache_mode cache_mode; /* that it was opened with */
    struct provider **providers;       /* those of the configuration at the start */
    size_t providers_length;
};
