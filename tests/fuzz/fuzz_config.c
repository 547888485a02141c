/* fuzz_config: any bytes as tiermq.yaml are read or refused with a reason; what is read can be written and read again. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct config *read_or_refuse(const char *text, size_t bytes)
{
    struct config *config = NULL;
    struct config_errors errors;
    const int r = config_read_text(text, bytes, "fuzz", &config, &errors);
    if ((r == 0) != (config != NULL) || (r != 0 && errors.length == 0)) {
        abort();
    }
    config_errors_finish(&errors);
    return config;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *config = read_or_refuse((const char *)data, size);
    if (config == NULL) {
        return 0;
    }
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL || config_write(config, out) < 0 || fclose(out) != 0) {
        abort();
    }
    struct config *again = read_or_refuse(text, bytes);
    if (again == NULL || config_diff_restart(config, again, NULL) != 0) {
        abort();
    }
    config_destroy(&config);
    config_destroy(&again);
    free(text);
    return 0;
}
