/*
 * link_listener: takes the connections that come to an address.
 *
 * When the process has no descriptors left, or the machine no memory, those that come wait in the
 * kernel and are looked at again after a while. Belongs to the loop's thread.
 */
#pragma once
#include "common/attributes.h"
#include "common/link_address.h"
#include "common/loop.h"

enum {
    LINK_ACCEPTS_PER_TURN = 64,
    LINK_ACCEPT_AGAIN_MS = 100,
};

struct link_listener;

/* Gives: `fd`, non-blocking. Must not destroy the listener. */
typedef void link_accepted_fn(void *context, int fd);

/* Errors: of link_address_listen(); -ENOMEM; -errno of epoll_ctl. */
MUST_USE int link_listener_create(struct loop *loop, const struct link_address *address,
                                  link_accepted_fn *on_accepted, void *context,
                                  struct link_listener **ret_listener);
/* Removes a socket file. */
void link_listener_destroy(struct link_listener **listener);

/* As bound, with the real port. Owned by the listener. */
const char *link_listener_endpoint(const struct link_listener *listener);
