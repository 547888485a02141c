/*
 * evidence: what may be promised of near hits, by class, as operators see it: the rules of the configuration beside what the core knows.
 */
#pragma once
#include "common/threshold.h"

struct broker;
struct config;
struct http_request;
struct http_response;

/* GET /v1/cache/evidence?limit=64: the classes most recently used. `context` is the broker. A verdict takes about 0.2 ms. */
void evidence_show(void *context, const struct http_request *request, struct http_response *response);
