/*
 * link_topics: what one subscriber of a PUB wants to hear: all that begins with any of these.
 *
 * The same may be asked for several times, and is then to be cancelled as often.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/attributes.h"

enum {
    LINK_TOPICS_MAX = 256, /* of one subscriber */
    LINK_TOPIC_BYTES_MAX = 255,
};

struct link_topic;

struct link_topics {
    struct link_topic *first;
    size_t length;
};

/* Errors: -EPROTO too many, or too long, for *ret_reason; -ENOMEM. */
MUST_USE int link_topics_add(struct link_topics *topics, const void *prefix, size_t bytes,
                             const char **ret_reason);
void link_topics_cancel(struct link_topics *topics, const void *prefix, size_t bytes);
bool link_topics_match(const struct link_topics *topics, const void *data, size_t bytes);
void link_topics_finish(struct link_topics *topics);
