/*
 * links: messages from whoever is at the other end of a socket, without sockets, for targets of
 * whole programs.
 *
 * links.c stands in for common/link.c: what is sent through a link must be an envelope that can be
 * read and owns as many payloads as it says; what the input says has arrived is handed over by
 * links_deliver().
 *
 * In an input a message is a byte with the number of parts, then each part behind its length in two
 * bytes.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/frame.h"
#include "common/link.h"

enum { LINKS_PARTS_MAX = 8, LINKS_MAX = 8 };

/* What is left of an input. */
struct input {
    const uint8_t *data;
    size_t bytes;
};

/* 0 at its end. */
uint8_t input_byte(struct input *input);

struct link_part {
    uint8_t *data; /* of its own allocation, so that a read beyond its end is seen */
    size_t bytes;
};

struct link_message {
    struct link_part parts[LINKS_PARTS_MAX];
    size_t length;
};

/*
 * Gives: a message, with the header of `kind` put before its first part if `has_header`; to be
 * released with links_message_finish().
 */
void links_take_message(struct input *input, enum frame_kind kind, bool has_header,
                        struct link_message *ret_message);
void links_message_finish(struct link_message *message);

/* To the handler of the link of this kind that was opened last; nothing happens without one. */
void links_deliver(enum link_kind kind, struct link_message *message);
/* Whether sending fails from now on: -EAGAIN, but for events. */
void links_set_full(bool is_full);
