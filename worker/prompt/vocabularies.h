/*
 * vocabularies: the vocabulary files that the configuration names (models[].vocabulary), each read
 * once: when the worker starts, or when a reload first names it. A file that cannot be read is
 * logged, and tried again at the next reload; tokens of its models are estimated meanwhile. Belongs
 * to the loop: what it finds may be gone after a reload.
 */
#pragma once
#include "common/attributes.h"

struct bpe;
struct config;
struct log;
struct vocabularies;

/* Blocks. Errors: -ENOMEM. */
MUST_USE int vocabularies_create(const struct config *config, struct log *log,
                                 struct vocabularies **ret_vocabularies);
/*
 * The configuration was reloaded: files that it names no more go, new ones are read, the others
 * stay as they were read. Blocks. Errors: -ENOMEM nothing has changed.
 */
MUST_USE int vocabularies_follow(struct vocabularies *vocabularies, const struct config *config,
                                 struct log *log);
void vocabularies_destroy(struct vocabularies **vocabularies);

/* NULL: the model has none, or it could not be read. */
const struct bpe *vocabularies_find(const struct vocabularies *vocabularies,
                                    const struct config *config, const char *model);
