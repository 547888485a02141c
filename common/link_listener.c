#include "common/link_listener.h"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "common/clock.h"

struct link_listener {
    int fd;
    struct loop_source *source;
    struct loop_timer *timer; /* set while nothing is accepted */
    link_accepted_fn *on_accepted;
    void *context;
    struct link_address address;
    char endpoint[LINK_ENDPOINT_BYTES];
};

/* What concerns one connection alone, which is gone then (accept(2)). */
static bool is_of_one(int error)
{
    switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
        return true;
    default:
        return false;
    }
}

/* The descriptor stays readable, so the loop would spin if it were watched. */
static void pause_for_a_while(struct link_listener *listener)
{
    (void)!loop_source_set_events(listener->source, 0); /* fails on no descriptor that is watched */
    loop_timer_set(listener->timer, clock_monotonic_ms() + LINK_ACCEPT_AGAIN_MS);
}

static void pause_is_over(void *context)
{
    struct link_listener *listener = context;
    (void)!loop_source_set_events(listener->source, EPOLLIN);
}

static void on_readable(void *context, uint32_t events)
{
    (void)events;
    struct link_listener *listener = context;
    for (int i = 0; i < LINK_ACCEPTS_PER_TURN; i++) {
        const int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            listener->on_accepted(listener->context, fd);
        } else if (errno == EAGAIN) {
            return;
        } else if (!is_of_one(errno)) {
            pause_for_a_while(listener);
            return;
        }
    }
}

int link_listener_create(struct loop *loop, const struct link_address *address,
                         link_accepted_fn *on_accepted, void *context,
                         struct link_listener **ret_listener)
{
    CLEANUP(link_listener_destroy) struct link_listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL) {
        return -ENOMEM;
    }
    listener->fd = -1;
    listener->address = *address;
    listener->on_accepted = on_accepted;
    listener->context = context;
    int r = link_address_listen(address, &listener->fd, listener->endpoint);
    r = r < 0 ? r : loop_timer_create(loop, pause_is_over, listener, &listener->timer);
    r = r < 0 ? r
              : loop_watch(loop, listener->fd, EPOLLIN, on_readable, listener, &listener->source);
    if (r < 0) {
        return r;
    }
    *ret_listener = TAKE(listener);
    return 0;
}

void link_listener_destroy(struct link_listener **listener)
{
    struct link_listener *gone = TAKE(*listener);
    if (gone == NULL) {
        return;
    }
    loop_source_destroy(&gone->source);
    loop_timer_destroy(&gone->timer);
    if (gone->fd >= 0 && gone->address.family == AF_UNIX) {
        /* While it listens: nobody else takes the path over, whose socket would be lost. Gone
         * already is as good. */
        (void)unlink(gone->address.host);
    }
    link_socket_close(gone->fd);
    free(gone);
}

const char *link_listener_endpoint(const struct link_listener *listener)
{
    return listener->endpoint;
}
