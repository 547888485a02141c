/*
 * server: the HTTP side of the simulator: libmicrohttpd on the project's loop.
 *
 * One thread. Requests that take time are suspended and resumed by a timer, so any number may be in flight.
 * Beside the providers' paths it serves /healthz and, for tests:
 *   GET  /control/counters   what was served, by API, status, model and fault; tokens; in flight now and at most
 *   GET  /control/bill       what it would charge, by model: calls and tokens (bill.h)
 *   POST /control/faults     a new fault script (faults.h); GET shows it
 *   POST /control/latency    {"first_token_ms", "tokens_per_s", "jitter_percent", "slots"}; GET shows it
 *   POST /control/versions   of the data that answers are made from (versions.h); GET shows them
 *   POST /control/limits     new rate limits (rates.h), all buckets full; GET shows them
 *   GET  /control/history    what happened in each second of the last ten minutes (history.h)
 *   POST /control/reset      counters and history to zero
 */
#pragma once
#include <stdint.h>
#include "common/attributes.h"
#include "tests/modelsim/faults.h"
#include "tests/modelsim/latency.h"
#include "tests/modelsim/model.h"
#include "tests/modelsim/rates.h"
#include "tests/modelsim/versions.h"

struct loop;
struct server;

enum { SERVER_MODELS_MAX = 64, SERVER_BODY_BYTES_MAX = 16 << 20 };

struct server_options {
    const char *host;     /* an IPv4 address */
    uint16_t port;        /* 0: any free one */
    uint64_t seed;
    const char *models[SERVER_MODELS_MAX]; /* what it serves; others are answered with 404 */
    size_t models_length;
    const char *api_key;  /* NULL: any; otherwise others get 401 */
    struct model_style style;
    struct latency latency;
    struct faults faults;
    struct versions versions;
    const char *calls_path; /* where each call is written down (calls.h); NULL: nowhere */
    struct rate_options rates;
    double prefix_cache_s; /* how long beginnings of prompts are kept (prefixes.h); 0: they are not */
    double prompt_cache_percent; /* of a prompt that was in the prompt cache, as OpenAI and Anthropic tell it */
    bool with_stamps;       /* chunks of OpenAI's streams say when they were written */
};

/* Errors: -EADDRINUSE and other errno of binding, -EINVAL host, -ENOMEM. */
MUST_USE int server_create(struct loop *loop, const struct server_options *options, struct server **ret_server);
void server_destroy(struct server **server);
uint16_t server_port(const struct server *server);
