/* http_listen: the listening socket of an HTTP server, with errors that say what is wrong with the
 * address. */
#pragma once
#include <stddef.h>
#include "common/attributes.h"

enum { HTTP_ADDRESS_BYTES_MAX = 256 };

/*
 * `address` is "host:port", "[::1]:port" (port 0: any free one) or "unix:/path". A unix socket is
 * made for its owner alone; one left behind by a dead process is replaced. Gives: *ret_fd,
 * non-blocking and listening; ret_bound, HTTP_ADDRESS_BYTES_MAX long, the address with the real
 * port. Errors: -EINVAL (address); -EADDRINUSE; -EADDRNOTAVAIL; -EACCES; -errno of the socket
 * calls.
 */
MUST_USE int http_listen(const char *address, int *ret_fd, char *ret_bound);
/* Closes what http_listen() opened; removes a unix socket. */
void http_listen_close(int fd, const char *bound);
