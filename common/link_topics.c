#include "common/link_topics.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct link_topic {
    struct link_topic *next;
    size_t bytes;
    uint8_t prefix[];
};

int link_topics_add(struct link_topics *topics, const void *prefix, size_t bytes,
                    const char **ret_reason)
{
    if (topics->length == LINK_TOPICS_MAX || bytes > LINK_TOPIC_BYTES_MAX) {
        *ret_reason = "it subscribes to too much";
        return -EPROTO;
    }
    struct link_topic *topic = malloc(sizeof(*topic) + bytes);
    if (topic == NULL) {
        *ret_reason = "out of memory";
        return -ENOMEM;
    }
    topic->bytes = bytes;
    if (bytes > 0) {
        memcpy(topic->prefix, prefix, bytes);
    }
    topic->next = topics->first;
    topics->first = topic;
    topics->length++;
    return 0;
}

static bool begins_with(const void *data, size_t bytes, const void *prefix, size_t prefix_bytes)
{
    return bytes >= prefix_bytes && (prefix_bytes == 0 || memcmp(data, prefix, prefix_bytes) == 0);
}

void link_topics_cancel(struct link_topics *topics, const void *prefix, size_t bytes)
{
    struct link_topic **place = &topics->first;
    while (*place != NULL &&
           ((*place)->bytes != bytes || !begins_with((*place)->prefix, bytes, prefix, bytes))) {
        place = &(*place)->next;
    }
    struct link_topic *topic = *place;
    if (topic != NULL) {
        *place = topic->next;
        topics->length--;
        free(topic);
    }
}

bool link_topics_match(const struct link_topics *topics, const void *data, size_t bytes)
{
    for (const struct link_topic *topic = topics->first; topic != NULL; topic = topic->next) {
        if (begins_with(data, bytes, topic->prefix, topic->bytes)) {
            return true;
        }
    }
    return false;
}

void link_topics_finish(struct link_topics *topics)
{
    while (topics->first != NULL) {
        struct link_topic *topic = topics->first;
        topics->first = topic->next;
        free(topic);
    }
    topics->length = 0;
}
