/*
 * link_end: why a connection of a link has ended, for whoever logs and counts it.
 *
 * Only ends that came upon a link: those that its owner brings about, with link_destroy(), are
 * none.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/log.h"

enum link_end {
    LINK_END_CLOSED,    /* its peer has closed it, or is gone and its kernel says so */
    LINK_END_RESET,     /* it was cut: the peer's machine, the network or a write says so */
    LINK_END_SILENT,    /* no handshake in time, or no sign of life when asked for one */
    LINK_END_PROTOCOL,  /* its peer breaks the protocol, does not speak it, or refuses this side */
    LINK_END_TOO_LARGE, /* a part of a message is larger than this side takes */
    LINK_END_CROWDED, /* to keep a bound: of handshakes, or of what is held of messages under way */
    LINK_END_REPLACED, /* another connection has come under its name */
    LINK_END_MEMORY,   /* there was none for what it sent */
    LINK_ENDS
};

/* Valid within the call that it is given to. */
struct link_ending {
    enum link_end end;
    const char *reason;  /* in words */
    const char *address; /* of the peer, as link_address_of_peer() writes it */
    const void *peer;    /* its name, as it comes with messages; ROUTER */
    size_t peer_bytes;   /* 0: it had none */
    bool was_open;       /* the handshake was done: messages may have gone both ways */
};

/* In the words of docs/metrics.md. */
const char *link_end_name(enum link_end end);
/* DEBUG for a connection that its peer has closed: each client that ends does. */
enum log_level link_end_level(enum link_end end);
/* What an error of link_wire_read() means. */
enum link_end link_end_of_error(int error);
