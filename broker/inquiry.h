/*
 * inquiry: what an operator asks of one job that has to be read from the store first: its attempts, and its payload.
 *
 * The records are asked for at the end of the turn, when all that was decided before is on its way to the store, and the HTTP
 * request waits for them; the loop does not. Bounded in number. Belongs to the loop.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/attributes.h"
#include "common/http_admin.h"
#include "common/id.h"

struct blob;
struct broker;
struct inquiries;

MUST_USE int inquiries_create(struct inquiries **ret_inquiries); /* Errors: -ENOMEM */
void inquiries_destroy(struct inquiries **inquiries);

/*
 * Answers with `object` and, added to it, `history` of the job and, if wanted, its `request`. The job is pending or a
 * dead letter. Takes: `object`; NULL: no memory for it.
 */
void inquiry_answer(struct broker *broker, const struct http_request *request,
                    struct http_response *response, json_t *object, const struct id *job_id,
                    bool wants_payload);

/* At the end of a turn, behind its records. */
void inquiries_ask(struct broker *broker);
/* Whether the store's answer is to an inquiry; the core has the others. */
bool inquiry_is_token(uint64_t token);
void inquiries_loaded(struct broker *broker, uint64_t token, int result, struct blob *value);
