/*
 * resolver: one name looked up, without blocking the loop.
 *
 * getaddrinfo() has no form that does not block, so a thread of its own calls it. That thread ends
 * with the answer, or some time after the resolver was destroyed: nobody waits for it. Belongs to
 * the loop's thread.
 */
#pragma once
#include "common/attributes.h"
#include "common/link_address.h"
#include "common/loop.h"

enum { RESOLVER_ADDRESSES_MAX = 16 };

struct resolver;

/*
 * Calls `on_resolved(context)` in a turn of the loop, once. Errors: -ENOMEM; -EAGAIN no thread can
 * be begun; -errno of eventfd.
 */
MUST_USE int resolver_start(struct loop *loop, const struct link_address *address,
                            loop_fn *on_resolved, void *context, struct resolver **ret_resolver);
void resolver_destroy(struct resolver **resolver); /* safe inside on_resolved */

/* Readable when it is resolved; for those who cannot wait for a turn. */
int resolver_fd(const struct resolver *resolver);
/* When it is resolved: the addresses, best first; returns how many, 0: nobody knows the name. */
size_t resolver_take(const struct resolver *resolver,
                     struct link_socket_name ret_names[RESOLVER_ADDRESSES_MAX]);
