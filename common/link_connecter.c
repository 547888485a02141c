#include "common/link_connecter.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/random.h>
#include "common/clock.h"
#include "common/resolver.h"

/* Idle, or one of these: resolver, source with a timer that is set, or such a timer alone. */
struct link_connecter {
    struct loop *loop;
    struct link_address address;
    link_connected_fn *on_connected;
    void *context;
    struct loop_timer *timer;
    int64_t wait_ms;           /* before the next try, at most */
    struct resolver *resolver; /* NULL: no name is being looked up */
    struct link_socket_name names[RESOLVER_ADDRESSES_MAX];
    size_t names_length, next_name;
    int fd; /* being connected; -1 */
    struct loop_source *source;
};

static void try_names(struct link_connecter *connecter);

/* ---- waiting ---- */

static int64_t chance_up_to(int64_t most_ms)
{
    uint32_t random = 0;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random)) {
        return most_ms;
    }
    return random % (most_ms + 1);
}

void link_connecter_start_later(struct link_connecter *connecter)
{
    const int64_t half_ms = connecter->wait_ms / 2;
    loop_timer_set(connecter->timer, clock_monotonic_ms() + half_ms + chance_up_to(half_ms));
    connecter->wait_ms *= 2;
    if (connecter->wait_ms > LINK_RECONNECT_MAX_MS) {
        connecter->wait_ms = LINK_RECONNECT_MAX_MS;
    }
}

void link_connecter_succeeded(struct link_connecter *connecter)
{
    connecter->wait_ms = LINK_RECONNECT_FIRST_MS;
}

/* ---- one address after the other ---- */

static void drop_socket(struct link_connecter *connecter)
{
    loop_source_destroy(&connecter->source);
    link_socket_close(connecter->fd);
    connecter->fd = -1;
}

static void hand_over(struct link_connecter *connecter)
{
    const int fd = connecter->fd;
    loop_timer_stop(connecter->timer);
    loop_source_destroy(&connecter->source);
    connecter->fd = -1;
    connecter->on_connected(connecter->context, fd);
}

static int socket_error(int fd)
{
    int error = 0;
    socklen_t bytes = sizeof(error);
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0 ? errno : error;
}

static void on_writable(void *context, uint32_t events)
{
    (void)events;
    struct link_connecter *connecter = context;
    if (socket_error(connecter->fd) == 0) {
        hand_over(connecter);
        return;
    }
    drop_socket(connecter);
    try_names(connecter);
}

/* Errors: this address does not do. */
static int try_name(struct link_connecter *connecter, const struct link_socket_name *name)
{
    connecter->fd = socket(name->name.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connecter->fd < 0) {
        return -errno;
    }
    if (connect(connecter->fd, (const struct sockaddr *)&name->name, name->bytes) < 0 &&
        errno != EINPROGRESS) {
        const int r = -errno;
        drop_socket(connecter);
        return r;
    }
    const int r = loop_watch(connecter->loop, connecter->fd, EPOLLOUT, on_writable, connecter,
                             &connecter->source);
    if (r < 0) {
        drop_socket(connecter);
        return r;
    }
    loop_timer_set(connecter->timer, clock_monotonic_ms() + LINK_CONNECT_MS);
    return 0;
}

static void try_names(struct link_connecter *connecter)
{
    while (connecter->next_name < connecter->names_length) {
        if (try_name(connecter, &connecter->names[connecter->next_name++]) == 0) {
            return;
        }
    }
    link_connecter_start_later(connecter);
}

static void on_resolved(void *context)
{
    struct link_connecter *connecter = context;
    connecter->names_length = resolver_take(connecter->resolver, connecter->names);
    resolver_destroy(&connecter->resolver);
    try_names(connecter);
}

void link_connecter_start(struct link_connecter *connecter)
{
    loop_timer_stop(connecter->timer);
    connecter->next_name = 0;
    connecter->names_length = 1;
    if (link_address_numeric(&connecter->address, &connecter->names[0]) == 0) {
        try_names(connecter);
        return;
    }
    connecter->names_length = 0;
    if (resolver_start(connecter->loop, &connecter->address, on_resolved, connecter,
                       &connecter->resolver) < 0) {
        link_connecter_start_later(connecter);
    }
}

/* The wait is over, or the time of the address that is tried. */
static void on_due(void *context)
{
    struct link_connecter *connecter = context;
    if (connecter->fd < 0) {
        link_connecter_start(connecter);
        return;
    }
    drop_socket(connecter);
    try_names(connecter);
}

/* ---- public ---- */

int link_connecter_create(struct loop *loop, const struct link_address *address,
                          link_connected_fn *on_connected, void *context,
                          struct link_connecter **ret_connecter)
{
    CLEANUP(link_connecter_destroy)
    struct link_connecter *connecter = calloc(1, sizeof(*connecter));
    if (connecter == NULL) {
        return -ENOMEM;
    }
    connecter->loop = loop;
    connecter->address = *address;
    connecter->on_connected = on_connected;
    connecter->context = context;
    connecter->fd = -1;
    connecter->wait_ms = LINK_RECONNECT_FIRST_MS;
    const int r = loop_timer_create(loop, on_due, connecter, &connecter->timer);
    if (r < 0) {
        return r;
    }
    *ret_connecter = TAKE(connecter);
    return 0;
}

void link_connecter_destroy(struct link_connecter **connecter)
{
    struct link_connecter *gone = TAKE(*connecter);
    if (gone == NULL) {
        return;
    }
    resolver_destroy(&gone->resolver);
    drop_socket(gone);
    loop_timer_destroy(&gone->timer);
    free(gone);
}

bool link_connecter_is_looking_up(const struct link_connecter *connecter)
{
    return connecter->resolver != NULL;
}

bool link_connecter_wait(struct link_connecter *connecter, int timeout_ms)
{
    const bool is_resolving = connecter->resolver != NULL;
    if (!is_resolving && connecter->fd < 0) {
        return false;
    }
    struct pollfd item = {.fd = is_resolving ? resolver_fd(connecter->resolver) : connecter->fd,
                          .events = is_resolving ? POLLIN : POLLOUT};
    if (poll(&item, 1, timeout_ms) == 1) {
        if (is_resolving) {
            on_resolved(connecter);
        } else {
            on_writable(connecter, EPOLLOUT);
        }
    }
    return true;
}
