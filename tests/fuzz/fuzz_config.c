/* tiermq.yaml: every text is either read, and then what is written of it is read again, or refused
 * with a reason. */
#include <stdio.h>
#include <string.h>
#include "common/config.h"
#include "tests/fuzz/fuzz.h"

static void read_again(const struct config *config)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    must_hold(out != NULL);
    const int written = config_write(config, out);
    fclose(out);
    must_hold(written == 0);
    struct config *again = NULL;
    struct config_errors errors = {0};
    const int r = config_read_text(text, bytes, "written", &again, &errors);
    if (r < 0) {
        fprintf(stderr, "%s\n%s\n", text, errors.length > 0 ? errors.items[0].text : "");
    }
    must_hold(r == 0);
    config_errors_finish(&errors);
    config_destroy(&again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct config *config = NULL;
    struct config_errors errors = {0};
    const int r = config_read_text((const char *)data, bytes, "fuzzed", &config, &errors);
    if (r == 0) {
        read_again(config);
    } else {
        must_hold(config == NULL && errors.length > 0);
    }
    config_errors_finish(&errors);
    config_destroy(&config);
    return 0;
}
