/*
 * admin_cache: the workers' caches in the admin interface.
 *
 *   POST /v1/cache/invalidate   {"tag": "prices", "reason": "new list", "dry_run": false, …}; see below
 *   GET  /v1/cache/stats|top|get|explain|export   asked of every worker; the query's parameters go along
 *   GET  /v1/cache/evidence   what may be promised of near hits, by class: evidence.h
 *   POST /v1/cache/rebuild|import                 likewise, with the body
 *
 * What is invalidated is named by key and scope (hex), tenant, namespace, tag, document, route, model, template_version,
 * older_than_ms, text_prefix, near_text with near_cosine_min: entries that fit all that is given. Everything is {"all": true}. The
 * answer comes when every worker has applied it, or SURVEY_MS (survey.h) are over: a worker that is away applies it before it
 * serves anything. What changes caches, or shows what tenants asked (top, get, export), answers on the same machine only.
 * See docs/cache.md.
 */
#pragma once
#include "common/attributes.h"

struct broker;

/* Adds the routes below /v1/cache. Errors: -ENOMEM. */
MUST_USE int admin_cache_add_routes(struct broker *broker);
