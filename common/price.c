#include "common/price.h"

#include <string.h>

#include "common/attributes.h"
#include "common/config.h"

static const unsigned __int128 UNIT = 1000000; /* tokens that a price is for */
static const uint32_t ONE_PERMILLE = 1000;

const char *price_class_name(enum price_class price_class)
{
    static const char *const names[PRICE_CLASSES] = {
        [PRICE_INPUT] = "input",
        [PRICE_CACHED_INPUT] = "cached_input",
        [PRICE_CACHE_WRITE] = "cache_write",
        [PRICE_CACHE_WRITE_LONG] = "cache_write_long",
        [PRICE_OUTPUT] = "output",
    };
    return names[price_class];
}

static const char *const services[PRICE_SERVICES] = {
    [SERVICE_STANDARD] = "standard",
    [SERVICE_BATCH] = "batch",
    [SERVICE_FLEX] = "flex",
    [SERVICE_PRIORITY] = "priority",
};

const char *price_service_name(enum price_service service)
{
    return services[service];
}

enum price_service price_service_find(const char *name)
{
    for (size_t i = 0; name != NULL && i < ARRAY_LENGTH(services); i++) {
        if (strcmp(services[i], name) == 0) {
            return (enum price_service)i;
        }
    }
    return SERVICE_STANDARD;
}

struct price price_of_model(const struct config_model *model)
{
    return (struct price){
        .nanousd_per_mtok =
            {
                [PRICE_INPUT] = model->input_nanousd_per_mtok,
                [PRICE_CACHED_INPUT] = model->cached_input_nanousd_per_mtok,
                [PRICE_CACHE_WRITE] = model->cache_write_nanousd_per_mtok,
                [PRICE_CACHE_WRITE_LONG] = model->cache_write_long_nanousd_per_mtok,
                [PRICE_OUTPUT] = model->output_nanousd_per_mtok,
            },
        .request_nanousd = model->request_nanousd,
        .permille =
            {
                [SERVICE_STANDARD] = ONE_PERMILLE,
                [SERVICE_BATCH] = model->batch_permille,
                [SERVICE_FLEX] = model->flex_permille,
                [SERVICE_PRIORITY] = model->priority_permille,
            },
    };
}

static uint64_t at_most(uint64_t value, uint64_t most)
{
    return value < most ? value : most;
}

/*
 * Rounds up. With factors of at most 2^40, 2^64 and 2^17, and six of them to add, nothing
 * overflows.
 */
uint64_t price_cost_nanousd(const struct price *price, const struct price_tokens *tokens,
                            enum price_service service)
{
    const uint64_t tokens_max = (UINT64_C(1) << PRICE_TOKENS_BITS) - 1;
    const uint64_t permille = at_most(price->permille[service], PRICE_PERMILLE_MAX);
    const unsigned __int128 unit = UNIT * ONE_PERMILLE;
    unsigned __int128 sum = (unsigned __int128)price->request_nanousd * UNIT;
    for (size_t i = 0; i < PRICE_CLASSES; i++) {
        sum += (unsigned __int128)at_most(tokens->of[i], tokens_max) * price->nanousd_per_mtok[i];
    }
    sum *= permille;
    const unsigned __int128 cost = sum / unit + (sum % unit != 0);
    return cost > UINT64_MAX ? UINT64_MAX : (uint64_t)cost;
}

static enum price_class dearest_input(const struct price *price)
{
    enum price_class dearest = PRICE_INPUT;
    for (size_t i = 0; i < PRICE_OUTPUT; i++) {
        if (price->nanousd_per_mtok[i] > price->nanousd_per_mtok[dearest]) {
            dearest = (enum price_class)i;
        }
    }
    return dearest;
}

uint64_t price_worst_nanousd(const struct price *price, uint64_t input_tokens,
                             uint64_t output_tokens)
{
    struct price_tokens tokens = {.of = {[PRICE_OUTPUT] = output_tokens}};
    tokens.of[dearest_input(price)] = input_tokens;
    return price_cost_nanousd(price, &tokens, SERVICE_STANDARD);
}

uint64_t price_add(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}
