/* What the thread and the loop share has an owner count, and is released by whoever lets go last.
 */
#include "common/resolver.h"
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct inquiry {
    atomic_int owners;
    int event_fd; /* readable once the names are written */
    struct link_address address;
    struct link_socket_name names[RESOLVER_ADDRESSES_MAX];
    size_t names_length;
};

struct resolver {
    struct inquiry *inquiry;
    struct loop_source *source;
    loop_fn *on_resolved;
    void *context;
};

static void let_go(struct inquiry *inquiry)
{
    if (atomic_fetch_sub_explicit(&inquiry->owners, 1, memory_order_acq_rel) > 1) {
        return;
    }
    (void)close(inquiry->event_fd);
    free(inquiry);
}

static void copy_names(struct inquiry *inquiry, const struct addrinfo *info)
{
    for (; info != NULL && inquiry->names_length < RESOLVER_ADDRESSES_MAX; info = info->ai_next) {
        struct link_socket_name *name = &inquiry->names[inquiry->names_length++];
        memcpy(&name->name, info->ai_addr, info->ai_addrlen);
        name->bytes = info->ai_addrlen;
    }
}

static void *look_up(void *context)
{
    struct inquiry *inquiry = context;
    const struct addrinfo hints = {.ai_family = inquiry->address.family,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICSERV};
    struct addrinfo *info = NULL;
    if (getaddrinfo(inquiry->address.host, inquiry->address.port, &hints, &info) == 0) {
        copy_names(inquiry, info);
        freeaddrinfo(info);
    }
    const uint64_t one = 1;
    (void)!write(inquiry->event_fd, &one, sizeof(one)); /* from 0 to 1: cannot fail */
    let_go(inquiry);
    return NULL;
}

/* It takes none of the process' signals. */
static int begin_thread(struct inquiry *inquiry)
{
    sigset_t all, before;
    pthread_t thread;
    if (sigfillset(&all) < 0 || pthread_sigmask(SIG_SETMASK, &all, &before) != 0) {
        return -EAGAIN;
    }
    atomic_fetch_add_explicit(&inquiry->owners, 1, memory_order_relaxed);
    const int r = -pthread_create(&thread, NULL, look_up, inquiry);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL); /* what it gave, it takes back */
    if (r < 0) {
        let_go(inquiry);
        return r;
    }
    return -pthread_detach(thread);
}

static int create_inquiry(const struct link_address *address, struct inquiry **ret_inquiry)
{
    struct inquiry *inquiry = calloc(1, sizeof(*inquiry));
    if (inquiry == NULL) {
        return -ENOMEM;
    }
    inquiry->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (inquiry->event_fd < 0) {
        const int r = -errno;
        free(inquiry);
        return r;
    }
    atomic_init(&inquiry->owners, 1);
    inquiry->address = *address;
    *ret_inquiry = inquiry;
    return 0;
}

static void on_written(void *context, uint32_t events)
{
    (void)events;
    struct resolver *resolver = context;
    loop_source_destroy(&resolver->source);
    resolver->on_resolved(resolver->context);
}

int resolver_start(struct loop *loop, const struct link_address *address, loop_fn *on_resolved,
                   void *context, struct resolver **ret_resolver)
{
    CLEANUP(resolver_destroy) struct resolver *resolver = calloc(1, sizeof(*resolver));
    if (resolver == NULL) {
        return -ENOMEM;
    }
    resolver->on_resolved = on_resolved;
    resolver->context = context;
    int r = create_inquiry(address, &resolver->inquiry);
    if (resolver->inquiry == NULL) {
        return r;
    }
    r = loop_watch(loop, resolver->inquiry->event_fd, EPOLLIN, on_written, resolver,
                   &resolver->source);
    r = r < 0 ? r : begin_thread(resolver->inquiry);
    if (r < 0) {
        return r;
    }
    *ret_resolver = TAKE(resolver);
    return 0;
}

void resolver_destroy(struct resolver **resolver)
{
    struct resolver *gone = TAKE(*resolver);
    if (gone == NULL) {
        return;
    }
    loop_source_destroy(&gone->source);
    if (gone->inquiry != NULL) {
        let_go(gone->inquiry);
    }
    free(gone);
}

int resolver_fd(const struct resolver *resolver)
{
    return resolver->inquiry->event_fd;
}

/* Reading the counter is what lets the thread's writes be seen here. */
size_t resolver_take(const struct resolver *resolver,
                     struct link_socket_name ret_names[RESOLVER_ADDRESSES_MAX])
{
    uint64_t count;
    const struct inquiry *inquiry = resolver->inquiry;
    if (read(inquiry->event_fd, &count, sizeof(count)) != (ssize_t)sizeof(count)) {
        return 0;
    }
    memcpy(ret_names, inquiry->names, inquiry->names_length * sizeof(inquiry->names[0]));
    return inquiry->names_length;
}
