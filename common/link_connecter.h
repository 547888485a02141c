/*
 * link_connecter: opens a stream to an address, and tries until one stands.
 *
 * Names are looked up anew for each try, and each of their addresses is tried in turn, for 2 s at
 * most: one that answers nothing would keep the others from their turn for minutes. Between
 * tries it waits for 50 ms, then twice as long each time up to 2 s, half of it by chance, so that
 * those whose peer restarts do not come all at once. Belongs to the loop's thread.
 */
#pragma once
#include "common/attributes.h"
#include "common/link_address.h"
#include "common/loop.h"

enum {
    LINK_RECONNECT_FIRST_MS = 50,
    LINK_RECONNECT_MAX_MS = 2000,
    LINK_CONNECT_MS = 2000, /* for one address: the kernel asks it twice in that time */
};

struct link_connecter;

/* Gives: `fd`, non-blocking and connected. */
typedef void link_connected_fn(void *context, int fd);

/* Errors: -ENOMEM. */
MUST_USE int link_connecter_create(struct loop *loop, const struct link_address *address,
                                   link_connected_fn *on_connected, void *context,
                                   struct link_connecter **ret_connecter);
void link_connecter_destroy(struct link_connecter **connecter); /* safe inside on_connected */

/* Tries at once; not while it tries. on_connected may be called before this returns. */
void link_connecter_start(struct link_connecter *connecter);
/* What stood has broken: tries after the wait. */
void link_connecter_start_later(struct link_connecter *connecter);
/* The peer is the one that was wanted: the next wait is short again. */
void link_connecter_succeeded(struct link_connecter *connecter);

/* A name is being looked up, which may take as long as the machine's resolver likes. */
bool link_connecter_is_looking_up(const struct link_connecter *connecter);

/*
 * For those who cannot wait for a turn: waits for the try under way, at most so long. Returns
 * whether there is one, or was.
 */
bool link_connecter_wait(struct link_connecter *connecter, int timeout_ms);
