#include "common/http_listen.h"
#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 64 };

static const char UNIX_PREFIX[] = "unix:";
enum { UNIX_PREFIX_BYTES = sizeof(UNIX_PREFIX) - 1 };

static void close_socket(int fd)
{
    if (fd >= 0) {
        (void)close(fd); /* nothing was written to it that could be lost */
    }
}

static bool is_unix(const char *address)
{
    return strncmp(address, UNIX_PREFIX, UNIX_PREFIX_BYTES) == 0;
}

/* ---- unix sockets ---- */

/* A socket file outlives its process. Only a refused connection proves that nobody listens. */
static bool is_abandoned(const struct sockaddr_un *name)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const bool is_refused = fd >= 0 &&
                            connect(fd, (const struct sockaddr *)name, sizeof(*name)) < 0 &&
                            errno == ECONNREFUSED;
    close_socket(fd);
    return is_refused;
}

static int bind_unix(int fd, const struct sockaddr_un *name)
{
    /* Linux gives the file the mode of the socket; a umask would belong to the whole process. */
    if (fchmod(fd, S_IRUSR | S_IWUSR) < 0) {
        return -errno;
    }
    const struct sockaddr *address = (const struct sockaddr *)name;
    if (bind(fd, address, sizeof(*name)) == 0) {
        return 0;
    }
    if (errno != EADDRINUSE || !is_abandoned(name)) {
        return -errno;
    }
    if (unlink(name->sun_path) < 0 || bind(fd, address, sizeof(*name)) < 0) {
        return -errno;
    }
    return 0;
}

static int listen_unix(const char *address, int *ret_fd, char *ret_bound)
{
    const char *path = address + UNIX_PREFIX_BYTES;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (*path == '\0' || strlen(path) >= sizeof(name.sun_path)) {
        return -EINVAL;
    }
    memcpy(name.sun_path, path, strlen(path));
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    int r = bind_unix(fd, &name);
    if (r == 0 && listen(fd, BACKLOG) < 0) {
        r = -errno;
    }
    if (r < 0) {
        close_socket(fd);
        return r;
    }
    (void)snprintf(ret_bound, HTTP_ADDRESS_BYTES_MAX, "%s", address);
    *ret_fd = fd;
    return 0;
}

/* ---- TCP ---- */

struct host_port {
    char host[HTTP_ADDRESS_BYTES_MAX];
    char port[8];
};

static int split(const char *address, struct host_port *ret_parts)
{
    const char *colon = strrchr(address, ':');
    if (colon == NULL || strlen(address) >= HTTP_ADDRESS_BYTES_MAX) {
        return -EINVAL;
    }
    const char *port = colon + 1;
    const size_t port_bytes = strlen(port);
    if (port_bytes == 0 || port_bytes > 5 || strspn(port, "0123456789") != port_bytes ||
        strtoul(port, NULL, 10) > UINT16_MAX) {
        return -EINVAL;
    }
    const char *host = address;
    size_t host_bytes = (size_t)(colon - address);
    if (host_bytes >= 2 && host[0] == '[' && host[host_bytes - 1] == ']') {
        host++;
        host_bytes -= 2;
    } else if (memchr(host, ':', host_bytes) != NULL) {
        return -EINVAL; /* an IPv6 address without brackets: where the port begins is a guess */
    }
    if (host_bytes == 0) {
        return -EINVAL;
    }
    memcpy(ret_parts->host, host, host_bytes);
    ret_parts->host[host_bytes] = '\0';
    memcpy(ret_parts->port, port, port_bytes + 1);
    return 0;
}

static int bind_and_listen(int fd, const struct addrinfo *info)
{
    const int on = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        return -errno;
    }
    return 0;
}

static int describe(int fd, char *ret_bound)
{
    struct sockaddr_storage name = {0};
    socklen_t bytes = sizeof(name);
    char host[HTTP_ADDRESS_BYTES_MAX - 16];
    char port[8];
    if (getsockname(fd, (struct sockaddr *)&name, &bytes) < 0) {
        return -errno;
    }
    if (getnameinfo((struct sockaddr *)&name, bytes, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return -EINVAL;
    }
    (void)snprintf(ret_bound, HTTP_ADDRESS_BYTES_MAX,
                   name.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return 0;
}

static int listen_tcp(const char *address, int *ret_fd, char *ret_bound)
{
    struct host_port parts;
    int r = split(address, &parts);
    if (r < 0) {
        return r;
    }
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *info = NULL;
    if (getaddrinfo(parts.host, parts.port, &hints, &info) != 0) {
        return -EINVAL;
    }
    const int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    r = fd < 0 ? -errno : bind_and_listen(fd, info);
    freeaddrinfo(info);
    if (r == 0) {
        r = describe(fd, ret_bound);
    }
    if (r < 0) {
        close_socket(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

int http_listen(const char *address, int *ret_fd, char *ret_bound)
{
    return is_unix(address) ? listen_unix(address, ret_fd, ret_bound)
                            : listen_tcp(address, ret_fd, ret_bound);
}

void http_listen_close(int fd, const char *bound)
{
    close_socket(fd);
    if (is_unix(bound)) {
        (void)unlink(bound + UNIX_PREFIX_BYTES); /* gone already is as good */
    }
}
