/* A log as a disk gives it back. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include "broker/store/wal.h"
#include "tests/fuzz/fuzz.h"

static int visit(void *context, uint64_t first, const void *record, size_t bytes)
{
    (void)first;
    size_t *sum = context;
    for (size_t i = 0; i < bytes; i++) {
        *sum += ((const uint8_t *)record)[i]; /* all of it can be read */
    }
    must_hold(bytes >= 12);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static char directory[] = "/tmp/tiermq-fuzz-wal-XXXXXX";
    static char path[64];
    if (path[0] == '\0') {
        must_hold(mkdtemp(directory) != NULL);
        snprintf(path, sizeof(path), "%s/000001.log", directory);
    }
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must_hold(fd >= 0 && write(fd, data, bytes) == (ssize_t)bytes && close(fd) == 0);
    struct wal_report checked, visited;
    size_t sum = 0;
    must_hold(wal_check(directory, 0, &checked) == 0);
    must_hold(wal_visit(directory, 0, visit, &sum, &visited) == 0);
    must_hold(checked.records == visited.records && checked.missing == visited.missing);
    must_hold(checked.gapless <= checked.last);
    must_hold(checked.missing == 0 || checked.place[0] != '\0');
    unlink(path);
    return 0;
}
