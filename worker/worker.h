/*
 * worker: answers jobs, from its cache or by calling a model.
 *
 * One loop owns everything: a link to each broker, the pipeline, the providers' connections; only
 * the cache has a thread. The slots are shared by the brokers: no more credit is out than slots are
 * free, and no broker is given more of it than its equal share. See DESIGN.md, "The worker's
 * pipeline".
 */
#pragma once
#include "common/attributes.h"

struct config;
struct log;
struct loop;
struct worker;

enum { WORKER_ERROR_BYTES = 256 };

/*
 * `config_path` (NULL: none) is read again on SIGHUP. The signals must be watched by the loop's
 * owner.
 * Takes: *config.
 * Errors: -EADDRINUSE the admin address; -EINVAL an address cannot be used; -EACCES, -ENOMEM, …
 * ret_error says which.
 */
MUST_USE int worker_create(struct loop *loop, struct log *log, struct config **config,
                           const char *config_path, struct worker **ret_worker,
                           char ret_error[WORKER_ERROR_BYTES]);
void worker_destroy(struct worker **worker);

/* Logs "ready" with the addresses. */
void worker_announce(const struct worker *worker);
/*
 * Takes no more jobs, finishes those it has within worker.drain_timeout, waits until their answers
 * are concluded, says goodbye, and stops the loop. Called again: at once.
 */
void worker_drain(struct worker *worker);
/*
 * Reads the configuration again: prices, models, routes, tiers' cache times, log level. A faulty
 * one changes nothing.
 */
void worker_reload(struct worker *worker);
