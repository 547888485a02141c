/* replay: runs a target over the files of its corpus, named as arguments. */
#include <stdio.h>
#include <stdlib.h>
#include "tests/fuzz/fuzz.h"

enum { FILE_BYTES_MAX = 1 << 20 };

static int replay(const char *path, uint8_t *room)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return -1;
    }
    const size_t bytes = fread(room, 1, FILE_BYTES_MAX, file);
    fclose(file);
    /* A copy of the exact size, so that AddressSanitizer sees every byte that is read beyond. */
    uint8_t *data = malloc(bytes == 0 ? 1 : bytes);
    must_hold(data != NULL);
    for (size_t i = 0; i < bytes; i++) {
        data[i] = room[i];
    }
    (void)LLVMFuzzerTestOneInput(data, bytes);
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    uint8_t *room = malloc(FILE_BYTES_MAX);
    must_hold(room != NULL);
    int failures = argc < 2;
    for (int i = 1; i < argc; i++) {
        failures += replay(argv[i], room) < 0;
    }
    free(room);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
