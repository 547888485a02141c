/*
 * Brackets ask for IPv6, and a host without them is IPv4: with both, `localhost` would be the IPv6
 * address on most machines, and miss a broker on 127.0.0.1.
 */
#include "common/link_address.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 1024, KEEPALIVE_IDLE_S = 60 };

static const char TCP_PREFIX[] = "tcp://";
static const char IPC_PREFIX[] = "ipc://";
enum { PREFIX_BYTES = sizeof(TCP_PREFIX) - 1 };

static const int ON = 1, OFF = 0;

void link_socket_close(int fd)
{
    if (fd >= 0) {
        (void)close(fd); /* what was written is the kernel's */
    }
}

/* ---- endpoints ---- */

static int parse_port(const char *text, bool bind, struct link_address *address)
{
    if (bind && strcmp(text, "*") == 0) {
        text = "0";
    }
    const size_t bytes = strlen(text);
    if (bytes == 0 || bytes > 5 || strspn(text, "0123456789") != bytes) {
        return -EINVAL;
    }
    const unsigned long port = strtoul(text, NULL, 10);
    if (port > UINT16_MAX || (port == 0 && !bind)) {
        return -EINVAL;
    }
    memcpy(address->port, text, bytes + 1);
    return 0;
}

static int parse_host(const char *text, size_t bytes, bool bind, struct link_address *address)
{
    address->family = AF_INET;
    if (bytes >= 2 && text[0] == '[' && text[bytes - 1] == ']') {
        address->family = AF_INET6;
        text++;
        bytes -= 2;
    } else if (bind && bytes == 1 && text[0] == '*') {
        address->family = AF_UNSPEC;
    } else if (memchr(text, ':', bytes) != NULL) {
        return -EINVAL; /* IPv6 without brackets: where the port begins is a guess */
    }
    if (bytes == 0 || bytes >= LINK_HOST_BYTES) {
        return -EINVAL;
    }
    memcpy(address->host, text, bytes);
    address->host[bytes] = '\0';
    return 0;
}

static int parse_tcp(const char *text, bool bind, struct link_address *address)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL) {
        return -EINVAL;
    }
    const int r = parse_port(colon + 1, bind, address);
    return r < 0 ? r : parse_host(text, (size_t)(colon - text), bind, address);
}

static int parse_ipc(const char *path, struct link_address *address)
{
    const size_t bytes = strlen(path);
    if (bytes == 0 || bytes >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
        return -EINVAL;
    }
    address->family = AF_UNIX;
    memcpy(address->host, path, bytes + 1);
    return 0;
}

int link_address_parse(const char *endpoint, bool bind, struct link_address *ret_address)
{
    struct link_address address = {0};
    int r = -EINVAL;
    if (strlen(endpoint) >= LINK_ENDPOINT_BYTES) {
        return r;
    }
    if (strncmp(endpoint, TCP_PREFIX, PREFIX_BYTES) == 0) {
        r = parse_tcp(endpoint + PREFIX_BYTES, bind, &address);
    } else if (strncmp(endpoint, IPC_PREFIX, PREFIX_BYTES) == 0) {
        r = parse_ipc(endpoint + PREFIX_BYTES, &address);
    }
    if (r == 0) {
        *ret_address = address;
    }
    return r;
}

/* ---- names of sockets ---- */

static void name_unix(const struct link_address *address, struct link_socket_name *ret_name)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    (void)snprintf(name.sun_path, sizeof(name.sun_path), "%s", address->host);
    memcpy(&ret_name->name, &name, sizeof(name));
    ret_name->bytes = sizeof(name);
}

static int resolve(const struct link_address *address, int flags, struct link_socket_name *ret_name)
{
    const struct addrinfo hints = {.ai_family = address->family,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = flags | AI_NUMERICSERV};
    struct addrinfo *info = NULL;
    if (getaddrinfo(address->host, address->port, &hints, &info) != 0) {
        return -EINVAL;
    }
    memcpy(&ret_name->name, info->ai_addr, info->ai_addrlen);
    ret_name->bytes = info->ai_addrlen;
    freeaddrinfo(info);
    return 0;
}

int link_address_numeric(const struct link_address *address, struct link_socket_name *ret_name)
{
    if (address->family == AF_UNIX) {
        name_unix(address, ret_name);
        return 0;
    }
    return resolve(address, AI_NUMERICHOST, ret_name) < 0 ? -EAGAIN : 0;
}

/* ---- sockets ---- */

/* Each is a wish: without it the connection works as well, a little worse. */
void link_address_of_peer(int fd, char ret_text[LINK_PEER_ADDRESS_BYTES])
{
    struct sockaddr_storage name = {0};
    socklen_t bytes = sizeof(name);
    char host[64], port[8];
    ret_text[0] = '\0';
    if (getpeername(fd, (struct sockaddr *)&name, &bytes) < 0) {
        return;
    }
    if (name.ss_family == AF_UNIX) {
        (void)snprintf(ret_text, LINK_PEER_ADDRESS_BYTES, "ipc");
    } else if (getnameinfo((const struct sockaddr *)&name, bytes, host, sizeof(host), port,
                           sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        const bool is_ipv6 = name.ss_family == AF_INET6;
        (void)snprintf(ret_text, LINK_PEER_ADDRESS_BYTES, is_ipv6 ? "[%s]:%s" : "%s:%s", host,
                       port);
    }
}

void link_socket_tune(int fd)
{
    const int idle_s = KEEPALIVE_IDLE_S;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &ON, sizeof(ON));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &ON, sizeof(ON));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
}

static int open_stream(int family, int *ret_fd)
{
    const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    *ret_fd = fd;
    return 0;
}

static int bind_to(int fd, const struct link_socket_name *name)
{
    return bind(fd, (const struct sockaddr *)&name->name, name->bytes) < 0 ? -errno : 0;
}

/* Only a refused connection proves that nobody listens. */
static bool is_abandoned(const struct link_socket_name *name)
{
    int fd = -1;
    if (open_stream(AF_UNIX, &fd) < 0) {
        return false;
    }
    const bool is_refused =
        connect(fd, (const struct sockaddr *)&name->name, name->bytes) < 0 && errno == ECONNREFUSED;
    link_socket_close(fd);
    return is_refused;
}

static int bind_unix(int fd, const struct link_address *address)
{
    struct link_socket_name name;
    name_unix(address, &name);
    const int r = bind_to(fd, &name);
    if (r != -EADDRINUSE || !is_abandoned(&name)) {
        return r;
    }
    return unlink(address->host) < 0 ? -errno : bind_to(fd, &name);
}

static int bind_tcp(int fd, const struct link_address *address)
{
    struct link_socket_name name;
    const int r = resolve(address, AI_PASSIVE, &name);
    if (r < 0) {
        return r;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &ON, sizeof(ON)) < 0 ||
        (address->family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &OFF, sizeof(OFF)) < 0)) {
        return -errno;
    }
    return bind_to(fd, &name);
}

static int describe(int fd, const struct link_address *address, char *ret_endpoint)
{
    if (address->family == AF_UNIX) {
        (void)snprintf(ret_endpoint, LINK_ENDPOINT_BYTES, "%s%s", IPC_PREFIX, address->host);
        return 0;
    }
    struct sockaddr_storage name = {0};
    socklen_t bytes = sizeof(name);
    char host[LINK_HOST_BYTES], port[8];
    if (getsockname(fd, (struct sockaddr *)&name, &bytes) < 0) {
        return -errno;
    }
    if (getnameinfo((const struct sockaddr *)&name, bytes, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return -EINVAL;
    }
    (void)snprintf(ret_endpoint, LINK_ENDPOINT_BYTES,
                   name.ss_family == AF_INET6 ? "%s[%s]:%s" : "%s%s:%s", TCP_PREFIX, host, port);
    return 0;
}

static int listen_on(const struct link_address *address, int *ret_fd, char *ret_endpoint)
{
    int fd = -1;
    int r = open_stream(address->family, &fd);
    if (r < 0) {
        return r;
    }
    r = address->family == AF_UNIX ? bind_unix(fd, address) : bind_tcp(fd, address);
    if (r == 0 && listen(fd, BACKLOG) < 0) {
        r = -errno;
    }
    r = r < 0 ? r : describe(fd, address, ret_endpoint);
    if (r < 0) {
        link_socket_close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

/* All interfaces: an IPv6 socket takes IPv4 as well, where the machine has IPv6. */
static int listen_on_all(const struct link_address *address, int *ret_fd, char *ret_endpoint)
{
    struct link_address all = {.family = AF_INET6, .host = "::"};
    memcpy(all.port, address->port, sizeof(all.port));
    const int r = listen_on(&all, ret_fd, ret_endpoint);
    if (r != -EAFNOSUPPORT && r != -EADDRNOTAVAIL && r != -EINVAL) {
        return r;
    }
    all.family = AF_INET;
    memcpy(all.host, "0.0.0.0", sizeof("0.0.0.0"));
    return listen_on(&all, ret_fd, ret_endpoint);
}

int link_address_listen(const struct link_address *address, int *ret_fd,
                        char ret_endpoint[LINK_ENDPOINT_BYTES])
{
    return address->family == AF_UNSPEC ? listen_on_all(address, ret_fd, ret_endpoint)
                                        : listen_on(address, ret_fd, ret_endpoint);
}
