/* link_address: what the endpoint of a link means, and sockets for it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include "common/attributes.h"

enum {
    LINK_HOST_BYTES = 256,
    LINK_ENDPOINT_BYTES = 512, /* longer ones are no endpoints */
    LINK_PEER_ADDRESS_BYTES = 80,
};

struct link_address {
    int family;                 /* AF_INET, AF_INET6, AF_UNIX; AF_UNSPEC: all interfaces, both */
    char host[LINK_HOST_BYTES]; /* name or number, without brackets; AF_UNIX: the path */
    char port[8];               /* digits */
};

struct link_socket_name {
    struct sockaddr_storage name;
    socklen_t bytes;
};

/*
 * tcp://host:port, tcp://[host]:port, ipc://path. The host `*` and the ports `*` and `0` are for
 * binding. Errors: -EINVAL.
 */
MUST_USE int link_address_parse(const char *endpoint, bool bind, struct link_address *ret_address);

/* Errors: -EAGAIN the host is a name, which has to be resolved. */
MUST_USE int link_address_numeric(const struct link_address *address,
                                  struct link_socket_name *ret_name);

/*
 * Binds and listens; a name is resolved here, which blocks. A socket file that a dead process left
 * behind is replaced. Gives: *ret_fd, non-blocking; the endpoint with the real port.
 * Errors: -EINVAL nobody knows the name; -EADDRINUSE; -errno of the socket calls.
 */
MUST_USE int link_address_listen(const struct link_address *address, int *ret_fd,
                                 char ret_endpoint[LINK_ENDPOINT_BYTES]);

/*
 * Who is at the other end of a connected socket: its numeric host, in brackets if it is IPv6, and
 * port; "ipc" for a socket file's, "" if nobody knows.
 */
void link_address_of_peer(int fd, char ret_text[LINK_PEER_ADDRESS_BYTES]);

/* A stream of ours: nothing waits for company, dead peers are found. */
void link_socket_tune(int fd);
void link_socket_close(int fd); /* accepts -1 */
