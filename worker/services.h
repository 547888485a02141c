/*
 * services: what the stages of a worker share. Owned by the worker; the configuration is replaced
 * by a reload.
 */
#pragma once
#include <stddef.h>
#include "common/canonical.h"
#include "common/config.h"
#include "common/id.h"
#include "worker/cache/judge.h"
#include "worker/cache/judge_share.h"

struct cache;
struct cache_counts;
struct lately;
struct near_policy;
struct log;
struct loop;
struct near_asides;
struct provider;
struct telemetry;
struct text_embedder;
struct vocabularies;

struct services {
    struct loop *loop;
    struct log *log;
    struct telemetry *telemetry;
    const struct config *config;
    struct cache *cache;               /* NULL: mode off */
    enum config_cache_mode cache_mode; /* that it was opened with */
    struct near_policy *near_policy;   /* NULL: the cache is off */
    struct cache_counts *cache_counts; /* likewise */
    int64_t began_unix_ms;             /* when the cache was opened */
    const char *embedder;              /* id and version, of the classes of near hits */
    struct near_asides *near_asides;   /* of an embedder that is asked */
    struct text_embedder *text_embedder; /* asked for vectors on the loop; NULL: the cache makes them */
    enum judge_kind judge;             /* of answers */
    double judge_cosine_min;
    const char *judge_model, *judge_prompt; /* JUDGE_MODEL */
    struct judge_share judge_share;         /* likewise: how much of what it is asked it answers */
    struct lately *lately;             /* of jobs and denials; NULL: the cache is off */
    struct id_source *ids;             /* of the jobs that the worker makes */
    struct canonical_secret key_secret; /* of the cache's keys and scopes, as at the start */
    struct vocabularies *vocabularies; /* to count tokens by */
    struct provider **providers;       /* those of the configuration at the start */
    size_t providers_length;
};
