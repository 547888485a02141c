/* Texts of clients and providers: what is read here is what jansson reads, value for value. */
#include <jansson.h>
#include <string.h>
#include "common/json_read.h"
#include "tests/fuzz/fuzz.h"

static void check(const uint8_t *data, size_t bytes, size_t flags)
{
    enum { DUMP = JSON_ENCODE_ANY | JSON_REAL_PRECISION(17) };
    json_t *read = json_read(data, bytes, flags, NULL);
    json_t *loaded = json_loadb((const char *)data, bytes, flags, NULL);
    must_hold((read == NULL) == (loaded == NULL));
    if (read != NULL) {
        char *a = json_dumps(read, DUMP), *b = json_dumps(loaded, DUMP);
        must_hold(a != NULL && b != NULL && strcmp(a, b) == 0);
        free(a);
        free(b);
    }
    json_decref(read);
    json_decref(loaded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    check(data, bytes, 0);
    check(data, bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL);
    return 0;
}
