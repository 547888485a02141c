/* exit_codes: how every program of the project ends. Documented in docs/cli.md; add there what is added here. */
#pragma once

enum exit_code {
    EXIT_OK = 0,
    EXIT_INTERNAL = 1,     /* a failure of the program or the machine; the log says which */
    EXIT_USAGE = 2,        /* wrong arguments */
    EXIT_CONFIG = 3,       /* the configuration has errors (all are printed) */
    EXIT_ADDRESS = 4,      /* an address is in use or cannot be bound */
    EXIT_STORE = 5,        /* the data directory is in use, unwritable, damaged, or of a later version */
    EXIT_UNREACHABLE = 6,  /* tiermq: no broker answered in time */
    EXIT_REJECTED = 7,     /* tiermq: a job was not accepted */
    EXIT_NOT_SUCCEEDED = 8 /* tiermq: at least one job ended dead, cancelled, expired or lost */
};
