/*
 * combined: several questions in one prompt (worker/combine/pack.h), answered as a model would: each as it would be alone, in
 * one JSON object, with the words, the tags and the seals that are asked for. With faults it does what models do with such
 * prompts: it forgets a question, confuses two, or answers two in one place.
 */
#pragma once
#include <stdbool.h>
#include "common/attributes.h"
#include "tests/modelsim/faults.h"
#include "tests/modelsim/model.h"
#include "tests/modelsim/protocol.h"

/* Whether its last message asks several questions, in the protocol of whichever maker. */
bool combined_is_asked(const struct model_request *request);

/* As model_answer_create(), for each question. Its text is escaped for a JSON string. Errors: -EINVAL the questions are no such; -ENOMEM. */
MUST_USE int combined_answer_create(uint64_t seed, const struct model_request *request, struct model_style style,
                                    enum fault_kind fault, struct model_answer *ret_answer);
