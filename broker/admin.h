/*
 * admin: the broker's HTTP interface, for operators and for `tiermq stats`, `pause`, `resume` and
 * `drain`.
 *
 *   GET  /healthz /readyz /metrics
 *   GET  /v1/stats /v1/queues /v1/workers /v1/pauses /v1/config /v1/jobs/{id}
 *   POST /v1/jobs/{id}/cancel
 *   …    /v1/dead …          see admin_dead.h
 *   …    /v1/cache/…         see admin_cache.h
 *   GET  /v1/upstreams
 *   POST /v1/upstreams/reset   {"provider": "openai", "model": "gpt-large"} or {"all": true}
 *   POST /v1/pause /v1/resume /v1/drain   {"kind": "route", "name": "auto", "reason": "prices"}
 *
 * A kind is route, tier, tenant or worker. Errors are {"error": {"message": …}} and name field,
 * value and remedy. What changes something is for loopback and unix sockets only: see
 * common/http_admin.h.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include "broker/core/event.h"
#include "common/attributes.h"
#include "common/exit_codes.h"

struct broker;
struct http_request;
struct http_response;

/* Binds broker.admin. What goes wrong is logged in words. */
MUST_USE enum exit_code admin_open(struct broker *broker);

/* For the files of this folder: answers with the value, which it takes; NULL: no memory for it. */
void admin_answer(struct http_response *response, int status, json_t *value);
/* Whether a route, tier, tenant or worker of this name is here. False: answered, with the names
 * that are. */
MUST_USE bool admin_knows(const struct broker *broker, struct http_response *response, int status,
                          enum pause_subject subject, const char *name);
/* An empty body is an empty object. Gives: *ret_body. Errors: -EINVAL, answered. */
MUST_USE int admin_read_body(const struct http_request *request, struct http_response *response,
                             json_t **ret_body);
