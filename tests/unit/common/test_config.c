/* config: every kind of mistake is found, named and placed; what is right is read, written and compared. */
#include "common/config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

struct reading {
    struct config *config;
    struct config_errors errors;
    int r;
};

static struct reading read_text(const char *text)
{
    struct reading reading = {.config = NULL};
    reading.r = config_read_text(text, strlen(text), "t.yaml", &reading.config, &reading.errors);
    return reading;
}

static void finish(struct reading *reading)
{
    config_errors_finish(&reading->errors);
    config_destroy(&reading->config);
}

static struct config *read_good(const char *text)
{
    struct reading reading = read_text(text);
    cr_assert_eq(reading.r, 0, "%s", reading.errors.length > 0 ? reading.errors.items[0].text : "no error given");
    cr_assert_eq(reading.errors.length, 0);
    config_errors_finish(&reading.errors);
    return reading.config;
}

/* Exactly one error, with this text. */
static void expect_error(const char *text, const char *error)
{
    struct reading reading = read_text(text);
    cr_expect_eq(reading.r, -EINVAL, "read without an error: %s", text);
    cr_expect_eq(reading.errors.length, 1, "%zu errors in: %s", reading.errors.length, text);
    for (size_t i = 0; i < reading.errors.length; i++) {
        cr_expect_str_eq(reading.errors.items[i].text, error);
    }
    cr_expect_null(reading.config);
    finish(&reading);
}

static void expect_error_with(const char *text, const char *part)
{
    struct reading reading = read_text(text);
    cr_expect_eq(reading.r, -EINVAL, "read without an error: %s", text);
    cr_expect_eq(reading.errors.length, 1, "%zu errors in: %s", reading.errors.length, text);
    for (size_t i = 0; i < reading.errors.length; i++) {
        cr_expect_not_null(strstr(reading.errors.items[i].text, part), "%s does not say: %s",
                           reading.errors.items[i].text, part);
    }
    finish(&reading);
}

static char *written(const struct config *config)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    cr_assert_eq(config_write(config, out), 0);
    fclose(out);
    return text;
}

static void expect_equal(const struct config *a, const struct config *b)
{
    char *text_a = written(a);
    char *text_b = written(b);
    cr_expect_str_eq(text_a, text_b);
    free(text_a);
    free(text_b);
}

/* ------------------------------------------------------------------------------------------------------ defaults */

Test(config, defaults_are_those_of_the_contract)
{
    struct config *config = read_good("");
    cr_expect_eq(config->log.level, LOG_INFO);
    cr_expect_str_eq(config->broker.listen_clients, "tcp://127.0.0.1:7700");
    cr_expect_eq(config->broker.store, STORE_ROCKSDB);
    cr_expect_eq(config->broker.payload_bytes_max, 8 << 20);
    cr_expect_eq(config->broker.lease_ms, 15000);
    cr_assert_eq(config->tiers_length, 3);
    const struct config_tier *realtime = config_find_tier(config, "realtime");
    cr_expect_eq(realtime->durability, DURABILITY_NONE);
    cr_expect_eq(realtime->slots_reserved_percent, 25);
    cr_expect_eq(realtime->backoff_max_ms, 2000);
    cr_expect_eq(realtime->bytes_max, UINT64_C(256) << 20);
    const struct config_tier *background = config_find_tier(config, "background");
    cr_expect_eq(background->durability, DURABILITY_FSYNC);
    cr_expect_eq(background->deadline_ms, 24 * 3600 * 1000);
    cr_expect_eq(background->jobs_max, 10000000);
    const struct config_model *small = config_find_model(config, "sim-small");
    cr_expect_eq(small->input_nanousd_per_mtok, 150000000);
    cr_expect_eq(small->cached_input_nanousd_per_mtok, 75000000);
    cr_expect_eq(small->output_nanousd_per_mtok, 600000000);
    cr_expect_str_eq(small->provider_model, "sim-small");
    cr_expect_str_eq(config_find_provider(config, "sim")->base_url, "http://127.0.0.1:7790/v1");
    cr_expect_eq(config->cache.judge_cosine_min_permille, 950);
    const struct config_route *automatic = config_find_route(config, "auto");
    cr_assert_eq(automatic->tiers_length, 3);
    cr_expect_str_eq(automatic->tiers[1].models[0], "sim-medium");
    cr_expect(strlen(config->worker.name) > 0);
    config_destroy(&config);
}

Test(config, empty_files_and_sections_are_the_defaults)
{
    static const char *const texts[] = {"# nothing\n", "---\n", "{}", "broker:\nworker: ~\n", "null\n"};
    struct config *defaults = read_good("");
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        struct config *config = read_good(texts[i]);
        expect_equal(defaults, config);
        config_destroy(&config);
    }
    config_destroy(&defaults);
}

Test(config, given_tiers_replace_the_default_set)
{
    struct config *config = read_good("tiers:\n  - {name: bulk, weight: 7}\n  - {name: realtime, weight: 70}\n");
    cr_assert_eq(config->tiers_length, 2);
    cr_expect_eq(config->tiers[0].weight, 7);
    cr_expect_eq(config->tiers[0].attempts_max, 5);
    cr_expect_eq(config->tiers[1].weight, 70);
    cr_expect_eq(config->tiers[1].durability, DURABILITY_NONE, "a default tier's name keeps its other values");
    const struct config_route *automatic = config_find_route(config, "auto");
    cr_expect_eq(automatic->tiers_length, 1, "orders for tiers that are gone are gone");
    config_destroy(&config);
}

Test(config, auto_has_all_given_models_in_their_order)
{
    struct config *config = read_good("providers: [{name: p, base_url: 'https://x/v1'}]\n"
                                      "models: [{name: b, provider: p}, {name: a, provider: p}]\n"
                                      "routes: [{name: quick, models: [a]}]\n");
    const struct config_route *automatic = config_find_route(config, "auto");
    cr_assert_not_null(automatic);
    cr_assert_eq(automatic->models_length, 2);
    cr_expect_str_eq(automatic->models[0], "b");
    cr_expect_str_eq(automatic->models[1], "a");
    cr_expect_eq(automatic->tiers_length, 0);
    config_destroy(&config);
}

Test(config, a_given_auto_stays_as_it_is)
{
    struct config *config = read_good("routes: [{name: auto, models: [sim-large], tiers: {realtime: [sim-small]}}]\n");
    cr_assert_eq(config->routes_length, 1);
    cr_expect_str_eq(config->routes[0].models[0], "sim-large");
    cr_expect_str_eq(config->routes[0].tiers[0].tier, "realtime");
    config_destroy(&config);
}

/* -------------------------------------------------------------------------------------------------------- values */

Test(config, values_are_read_in_their_units)
{
    struct config *config =
        read_good("broker: {lease: 2m, heartbeat: 250ms, result_ttl: 7d, payload_bytes_max: 64KiB, store: memory}\n"
                  "cache: {judge_cosine_min: 1, temperature_max: 0.125, bytes_max: 1048576}\n"
                  "models: [{name: m, provider: sim, input_usd_per_mtok: 0.000000001, output_usd_per_mtok: 15}]\n");
    cr_expect_eq(config->broker.lease_ms, 120000);
    cr_expect_eq(config->broker.heartbeat_ms, 250);
    cr_expect_eq(config->broker.result_ttl_ms, INT64_C(7) * 86400000);
    cr_expect_eq(config->broker.payload_bytes_max, 65536);
    cr_expect_eq(config->broker.store, STORE_MEMORY);
    cr_expect_eq(config->cache.judge_cosine_min_permille, 1000);
    cr_expect_eq(config->cache.temperature_max_permille, 125);
    cr_expect_eq(config->cache.bytes_max, 1 << 20);
    cr_expect_eq(config->models[0].input_nanousd_per_mtok, 1);
    cr_expect_eq(config->models[0].output_nanousd_per_mtok, UINT64_C(15000000000));
    config_destroy(&config);
}

Test(config, the_environment_fills_values_in)
{
    setenv("TIERMQ_TEST_KEY", "sk-\"1: #x", 1);
    setenv("TIERMQ_TEST_EMPTY", "", 1);
    unsetenv("TIERMQ_TEST_UNSET");
    struct config *config =
        read_good("providers:\n"
                  "  - {name: a, base_url: 'http://${TIERMQ_TEST_UNSET:-localhost}/v1', api_key: '${TIERMQ_TEST_KEY}'}\n"
                  "  - {name: b, base_url: 'http://x', api_key: '${TIERMQ_TEST_EMPTY}'}\n"
                  "  - {name: c, base_url: 'http://x', api_key: '$${x} $y ${TIERMQ_TEST_EMPTY:-d}'}\n"
                  "models: [{name: m, provider: a}]\n");
    cr_expect_str_eq(config->providers[0].base_url, "http://localhost/v1");
    cr_expect_str_eq(config->providers[0].api_key, "sk-\"1: #x", "a value cannot change the structure of the file");
    cr_expect_str_eq(config->providers[1].api_key, "");
    cr_expect_str_eq(config->providers[2].api_key, "${x} $y d");
    config_destroy(&config);
}

Test(config, a_provider_may_be_called_in_its_own_way)
{
    setenv("TIERMQ_TEST_KEY", "s3cret", 1);
    struct config *config =
        read_good("providers:\n"
                  "  - {name: p, base_url: 'http://x', api_key: k, key_header: api-key, query: 'api-version=2024-10-21&a=%20',\n"
                  "     headers: ['X-Title: a b', 'X-Token: ${TIERMQ_TEST_KEY}'],\n"
                  "     paths: {chat.completions: '/d/{model}/chat?x=1', embeddings: /e}}\n"
                  "models: [{name: m, provider: p}]\n");
    const struct config_provider *provider = &config->providers[0];
    cr_expect_str_eq(provider->key_header, "api-key");
    cr_expect_str_eq(provider->query, "api-version=2024-10-21&a=%20");
    cr_assert_eq(provider->headers_length, 2);
    cr_expect_str_eq(provider->headers[0], "X-Title: a b");
    cr_expect_str_eq(provider->headers[1], "X-Token: s3cret");
    cr_expect_str_eq(provider->paths.chat, "/d/{model}/chat?x=1");
    cr_expect_str_eq(provider->paths.completions, "");
    cr_expect_str_eq(provider->paths.embeddings, "/e");
    char *text = written(config);
    cr_expect_null(strstr(text, "s3cret"), "%s", text);
    cr_expect_not_null(strstr(text, "headers: [\"X-Title: ***\", \"X-Token: ***\"]"), "%s", text);
    struct config *again = read_good(text);
    cr_expect_str_eq(again->providers[0].paths.chat, "/d/{model}/chat?x=1");
    config_destroy(&again);
    free(text);
    config_destroy(&config);
}

static void expect_provider_error(const char *members, const char *wanted)
{
    char *text;
    cr_assert(asprintf(&text, "providers: [{name: p, base_url: 'http://x', %s}]\nmodels: [{name: m, provider: p}]\n", members) > 0);
    expect_error_with(text, wanted);
    free(text);
}

Test(config, a_header_is_sent_once_and_cannot_add_others)
{
    static const char *const mistakes[][2] = {
        {"headers: [X-Title]", "providers[0].headers[0]: \"***\" is not a header; write \"NAME: VALUE\""},
        {"headers: ['X-Title: ']", "is not a header"},
        {"headers: [': a']", "is not a header"},
        {"headers: ['X Title: a']", "is not a header"},
        {"headers: [\"X-Title: a\\r\\nX-Evil: b\"]", "has a line break or control character"},
        {"headers: ['content-type: text/plain']", "providers[0].headers: names the header content-type that every call has"},
        {"headers: ['Idempotency-Key: 1']", "that every call has already; leave it out"},
        {"headers: ['X-A: 1', 'x-a: 2']", "names the header x-a twice; leave one out"},
        {"api_key: k, headers: ['authorization: Basic eA==']", "that carries api_key; leave one of them out"},
        {"api_key: k, key_header: X-Key, headers: ['x-key: 1']", "that carries api_key"},
        {"type: anthropic, headers: ['Anthropic-Version: 1']", "that this type sends itself"},
        {"key_header: Host", "providers[0].key_header: \"Host\" names the header Host that every call has"},
        {"key_header: 'a b'", "is not the name of a header"},
        {"query: 'a b'", "providers[0].query: \"a b\" is not a query"},
        {"query: '?a=b'", "is not a query"},
        {"query: 'a=%2'", "is not a query"},
        {"query: 'a=b#c'", "is not a query"},
        {"paths: {chat.completions: chat}", "providers[0].paths.chat.completions: \"chat\" is not a path"},
        {"paths: {chat.completions: '/{name}'}", "is not a path"},
        {"paths: {chat: /x}", "\"chat\" is not a key"},
    };
    for (size_t i = 0; i < ARRAY_LENGTH(mistakes); i++) {
        expect_provider_error(mistakes[i][0], mistakes[i][1]);
    }
    config_destroy(&(struct config *){read_good("providers: [{name: p, base_url: 'http://x', headers: ['Authorization: Basic eA==']}]\n"
                                                "models: [{name: m, provider: p}]\n")});
}

/* ------------------------------------------------------------------------------------------------------ mistakes */

Test(config, an_error_names_place_key_value_and_remedy)
{
    expect_error("broker:\n  lease: 5 parsecs\n",
                 "t.yaml:2:10: broker.lease: \"5 parsecs\" is not a duration; write a whole number with ms, s, m, h or d, "
                 "such as 15s");
    expect_error("broker:\n  leese: 5s\n", "t.yaml:2:3: broker: \"leese\" is not a key; did you mean lease?");
    expect_error("tiers:\n- name: a\n- name: b\n  weight: 0\n",
                 "t.yaml:4:11: tiers[1].weight: \"0\" is out of range; write a value from 1 to 1000");
}

Test(config, every_kind_of_mistake_is_found)
{
    static const struct {
        const char *text, *part;
    } mistakes[] = {
        {"bogus: 1\n", "t.yaml:1:1: \"bogus\" is not a key; `tiermq config reference`"},
        {"lease: 1s\n", "t.yaml:1:1: \"lease\" is not a key here; did you mean broker.lease?"},
        {"cache: {cache_max_err: 0.1}\n", "cache: \"cache_max_err\" is not a key here; did you mean tiers[].cache_max_error?"},
        {"cache: {max_err: 0.1}\n", "cache: \"max_err\" is not a key here; did you mean tiers[].cache_max_error?"},
        {"- a\n", "t.yaml:1:1: is not a mapping"},
        {"broker: 5\n", "broker: \"5\" is not a mapping"},
        {"broker: [1]\n", "broker: is not a mapping"},
        {"[a]: b\n", "has a key that is no word"},
        {"tiers: {name: a}\n", "tiers: is not a list"},
        {"tiers: []\n", "tiers: has 0 entries; write 1 to 16"},
        {"tiers: [5]\n", "tiers[0]: \"5\" is not a mapping"},
        {"tiers: [{weight: 1}]\n", "tiers[0]: lacks the key name"},
        {"tiers: [{name: a}, {name: a}]\n", "t.yaml:1:27: tiers[1].name: \"a\" is the name of an earlier entry"},
        {"tiers: [{name: 'a b'}]\n", "tiers[0].name: \"a b\" is not a name"},
        {"tiers: [{name: ''}]\n", "tiers[0].name: \"\" is empty"},
        {"tiers: [{name: a, share_min_percent: 60}, {name: b, share_min_percent: 41}]\n",
         "t.yaml:1:8: tiers: have a share_min_percent of 101 percent together"},
        {"tiers: [{name: a, slots_reserved_percent: 60}, {name: b, slots_reserved_percent: 60}]\n",
         "slots_reserved_percent of 120 percent"},
        {"tiers: [{name: a, share_min_percent: 101}]\n", "\"101\" is out of range; write a value from 0 to 100"},
        {"tiers: [{name: a, backoff_first: 10s, backoff_max: 5s}]\n",
         "tiers[0].backoff_max: \"5s\" is shorter than backoff_first"},
        {"tiers: [{name: a, durability: paper}]\n", "\"paper\" is not one of its words; write one of none, fsync"},
        {"tiers: [{name: a, pool: eu}]\n", "t.yaml:1:25: tiers[0].pool: \"eu\" is not a pool"},
        {"pools: [eu]\nworker: {pools: [eu]}\n", "t.yaml:1:8: pools: lacks \"default\""},
        {"pools: [default, default]\n", "pools[1]: \"default\" stands in the list twice"},
        {"worker: {pools: [eu]}\n", "worker.pools[0]: \"eu\" is not a pool"},
        {"cache: {audit_tier: night}\n",
         "t.yaml:1:21: cache.audit_tier: \"night\" is not a tier; write the name of one in tiers, or none"},
        {"cache: {judge: model, judge_model: wise}\n",
         "t.yaml:1:36: cache.judge_model: \"wise\" is not a route; write the name of one in routes or models"},
        {"log: {level: loud}\n", "\"loud\" is not one of its words; write one of error, warn, info, debug"},
        {"broker: {lease: 1s, lease: 2s}\n", "t.yaml:1:21: broker.lease: is given twice"},
        {"broker: {lease: [1s]}\n", "broker.lease: is a list; write one value"},
        {"broker: {lease: {a: 1}}\n", "broker.lease: is a mapping; write one value"},
        {"broker: {lease: }\n", "broker.lease: has no value"},
        {"broker: {lease: 15}\n", "\"15\" lacks a unit; write ms, s, m, h or d behind it, such as 15s"},
        {"broker: {lease: 1.5s}\n", "is not a duration"},
        {"broker: {lease: -1s}\n", "is not a duration"},
        {"broker: {lease: 999999999999999999999s}\n", "is not a duration"},
        {"broker: {lease: 9000000000000000000d}\n", "is too long"},
        {"broker: {lease: 366d}\n", "is out of range; write a value from 100ms to 365d"},
        {"broker: {lease: 5s, heartbeat: 4s}\n", "t.yaml:1:32: broker.heartbeat: \"4s\" is more than half of broker.lease"},
        {"broker: {payload_bytes_max: 8MB}\n", "\"8MB\" is not a size"},
        {"broker: {payload_bytes_max: 9000000000TiB}\n", "is too large"},
        {"broker: {payload_bytes_max: 1}\n", "is out of range; write a value from 1KiB to 256MiB"},
        {"broker: {clients_max: many}\n", "\"many\" is not a whole number"},
        {"broker: {clients_max: 1e3}\n", "is not a whole number"},
        {"broker: {clients_max: ''}\n", "\"\" is not a whole number"},
        {"broker: {listen_clients: localhost}\n", "\"localhost\" is not an endpoint"},
        {"broker: {listen_clients: 'tcp://127.0.0.1:70000'}\n", "is not an endpoint"},
        {"broker: {listen_clients: 'udp://127.0.0.1:7000'}\n", "is not an endpoint"},
        {"broker: {listen_clients: 'tcp://127.0.0.1:7701'}\n",
         "broker.listen_workers: is the same endpoint as broker.listen_clients"},
        {"broker: {admin: 'http://x'}\n", "\"http://x\" is not an address"},
        {"broker: {data_dir: ''}\n", "broker.data_dir: \"\" is empty; write a path"},
        {"broker: {data_dir: \"a\\0b\"}\n", "has a zero byte"},
        {"broker: {data_dir: \"a\\nb\"}\n", "line break or control character"},
        {"worker: {brokers: ['tcp://a:1', 'tcp://b:1']}\n", "worker.events: has 1 endpoints and worker.brokers has 2"},
        {"worker: {brokers: []}\n", "worker.brokers: has 0 entries"},
        {"worker: {brokers: 'tcp://a:1'}\n", "worker.brokers: \"tcp://a:1\" is not a list"},
        {"client: {brokers: ['tcp://*:7700']}\n", "client.brokers[0]: \"tcp://*:7700\" is not an endpoint"},
        {"client: {brokers: ['tcp://a:0']}\n", "is not an endpoint"},
        {"cache: {judge_cosine_min: 1.1}\n", "is out of range; write a value from 0.001 to 1"},
        {"cache: {judge_cosine_min: 0.9999}\n", "is not a number; write up to three decimals"},
        {"cache: {judge_cosine_min: .5}\n", "is not a number"},
        {"cache: {embedder: {kind: magic}}\n", "\"magic\" is not one of its words; write one of builtin, static, http"},
        {"cache: {embedder: {kind: http, dim: 8}}\n", "cache.embedder.model: is needed for kind http"},
        {"cache: {embedder: {kind: http, model: m}}\n", "cache.embedder.dim: is needed for kind http"},
        {"cache: {embedder: {dim: 3073}}\n", "cache.embedder.dim: \"3073\" is out of range; write a value from 0 to 3072"},
        {"cache: {embedder: {base_url: localhost}}\n", "cache.embedder.base_url: \"localhost\" is not a URL"},
        {"cache: {embedder: {path: ''}}\n", "cache.embedder.path: \"\" is empty; write a path"},
        {"cache: {embedder: {batch_wait: 2s}}\n", "is out of range; write a value from 0ms to 1s"},
        {"providers: [{name: p, base_url: 'ftp://x'}]\nmodels: [{name: m, provider: p}]\n", "is not a URL"},
        {"providers: [{name: p, base_url: 'http://x'}]\n", "t.yaml:1:12: models: is missing"},
        {"models: [{name: m, provider: q}]\n", "models[0].provider: \"q\" is not a provider"},
        {"models: [{name: m}]\n", "models[0]: lacks the key provider"},
        {"models: [{name: m, provider: sim, input_usd_per_mtok: -1}]\n", "\"-1\" is not an amount"},
        {"models: [{name: m, provider: sim, input_usd_per_mtok: 1e-3}]\n", "is not an amount"},
        {"models: [{name: m, provider: sim, input_usd_per_mtok: 0.1234567891}]\n", "is not an amount"},
        {"models: [{name: m, provider: sim, input_usd_per_mtok: 1000001}]\n", "is out of range; write a value from 0 to 1000000"},
        {"routes: [{name: r, models: [nope]}]\n", "routes[0].models[0]: \"nope\" is not a model"},
        {"routes: [{name: r}]\n", "routes[0]: lacks the key models"},
        {"routes: [{name: sim-small, models: [sim-large]}]\n", "\"sim-small\" is the name of a model"},
        {"routes: [{name: r, models: [sim-small], tiers: {fast: [sim-small]}}]\n", "routes[0].tiers: \"fast\" is not a tier"},
        {"routes: [{name: r, models: [sim-small], tiers: {realtime: [x]}}]\n",
         "routes[0].tiers.realtime[0]: \"x\" is not a model"},
        {"routes: [{name: r, models: [sim-small], tiers: {realtime: [sim-small], realtime: [sim-small]}}]\n",
         "is given twice"},
        {"routes: [{name: r, models: [sim-small], tiers: [a]}]\n", "routes[0].tiers: is not a mapping"},
        {"client: {tenant: '${TIERMQ_TEST_UNSET}'}\n",
         "client.tenant: \"${TIERMQ_TEST_UNSET}\" needs the environment variable TIERMQ_TEST_UNSET"},
        {"worker: {admin: '${TIERMQ_TEST_BAD:-127.0.0.1:1}'}\n",
         "worker.admin: \"${TIERMQ_TEST_BAD:-127.0.0.1:1}\" is not an address; write HOST:PORT or unix:/PATH, such as "
         "127.0.0.1:7710; it comes from the environment variable TIERMQ_TEST_BAD"},
        {"worker: {pools: ['${TIERMQ_TEST_BAD}']}\n", "from the environment variable TIERMQ_TEST_BAD"},
        {"client: {tenant: '${}'}\n", "has a broken reference to the environment"},
        {"client: {tenant: '${A'}\n", "has a broken reference"},
        {"client: {tenant: '${A-b}'}\n", "has a broken reference"},
        {"a: &x 1\nb: *x\n", "t.yaml:1:4: has an anchor"},
        {"a: *x\n", "t.yaml:1:4: has an alias"},
        {"a: !!str x\n", "has a tag"},
        {"a: [[[[[[[[[1]]]]]]]]]\n", "is nested too deeply"},
        {"a: 1\n---\nb: 1\n", "begins a second document"},
        {"broker:\n\tlease: 1s\n", "is not YAML"},
        {"broker:\n  a: b: c\n", "t.yaml:2:7: is not YAML"},
        {"broker: \"x\n", "is not YAML"},
        {"broker: {admin: ${ADMIN}}\n", "a ${NAME} within {…} or […] needs them"},
        {"# x\nlog: \xff\n", "t.yaml:2:6: is not UTF-8"},
        {"log: \x01\n", "is not UTF-8 text"},
    };
    unsetenv("TIERMQ_TEST_UNSET");
    setenv("TIERMQ_TEST_BAD", "no name", 1);
    for (size_t i = 0; i < ARRAY_LENGTH(mistakes); i++) {
        expect_error_with(mistakes[i].text, mistakes[i].part);
    }
}

Test(config, all_errors_come_at_once_in_the_order_of_the_file)
{
    struct reading reading = read_text("worker: {slots: 0}\n"
                                       "routes: [{name: r, models: [gone]}]\n"
                                       "broker:\n"
                                       "  lease: soon\n"
                                       "  store: tape\n");
    cr_assert_eq(reading.errors.length, 4);
    static const size_t lines[] = {1, 2, 4, 5};
    for (size_t i = 0; i < ARRAY_LENGTH(lines); i++) {
        cr_expect_eq(reading.errors.items[i].line, lines[i], "%s", reading.errors.items[i].text);
    }
    finish(&reading);
}

Test(config, the_number_of_errors_is_bounded)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    for (int i = 0; i < 20000; i++) {
        fprintf(out, "wrong%d: 1\n", i);
    }
    fclose(out);
    struct reading reading = read_text(text);
    cr_expect_eq(reading.errors.length, 100);
    finish(&reading);
    free(text);
}

Test(config, secrets_are_never_shown)
{
    struct reading reading = read_text("providers: [{name: p, base_url: 'http://x', api_key: \"sk-secret\\n\"}]\n"
                                       "models: [{name: m, provider: p}]\n");
    cr_assert_eq(reading.errors.length, 1);
    cr_expect_null(strstr(reading.errors.items[0].text, "sk-secret"), "%s", reading.errors.items[0].text);
    finish(&reading);

    struct config *config = read_good("providers: [{name: p, base_url: 'http://x', api_key: sk-secret}]\n"
                                      "models: [{name: m, provider: p}]\n");
    char *text = written(config);
    cr_expect_null(strstr(text, "sk-secret"));
    cr_expect_not_null(strstr(text, "api_key: \"***\""));
    free(text);
    config_destroy(&config);
}

Test(config, short_files_cannot_stand_for_large_ones)
{
    expect_error_with("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n", "has an anchor");
    char *deep = malloc(200001);
    memset(deep, '[', 200000);
    deep[200000] = '\0';
    expect_error_with(deep, "is nested too deeply");
    free(deep);
    const size_t bytes = (1 << 20) + 1;
    char *large = malloc(bytes + 1);
    memset(large, '#', bytes);
    large[bytes] = '\0';
    expect_error_with(large, "t.yaml: is larger than 1 MiB");
    free(large);
}

Test(config, foreign_values_reach_a_terminal_cut_and_without_control_characters)
{
    expect_error_with("broker: {store: \"a\\e[31mb\"}\n", "\"a?[31mb\"");
    expect_error_with("broker: {store: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}\n",
                      "…\" is not one of its words");
}

/* --------------------------------------------------------------------------------------------------------- files */

Test(config, a_file_that_cannot_be_read_is_an_error_with_its_reason)
{
    struct reading reading = {.config = NULL};
    reading.r = config_read("/nonexistent/tiermq.yaml", &reading.config, &reading.errors);
    cr_expect_eq(reading.r, -ENOENT);
    cr_assert_eq(reading.errors.length, 1);
    cr_expect_str_eq(reading.errors.items[0].text, "/nonexistent/tiermq.yaml: cannot be read: No such file or directory");
    finish(&reading);

    reading.r = config_read("/", &reading.config, &reading.errors);
    cr_expect_eq(reading.r, -EISDIR);
    cr_expect_eq(reading.errors.length, 1);
    finish(&reading);
}

static char *located(const char *argument)
{
    char *path = NULL;
    cr_assert_eq(config_locate(argument, &path), 0);
    return path;
}

Test(config, the_file_is_looked_for_in_order)
{
    char directory[] = "/tmp/tiermq-test-XXXXXX";
    cr_assert_not_null(mkdtemp(directory));
    cr_assert_eq(chdir(directory), 0);
    unsetenv("TIERMQ_CONFIG");
    FILE *file = fopen("tiermq.yaml", "w");
    fclose(file);
    char *path = located(NULL);
    cr_expect_str_eq(path, "./tiermq.yaml");
    free(path);
    setenv("TIERMQ_CONFIG", "", 1);
    path = located(NULL);
    cr_expect_str_eq(path, "./tiermq.yaml");
    free(path);
    setenv("TIERMQ_CONFIG", "/env.yaml", 1);
    path = located(NULL);
    cr_expect_str_eq(path, "/env.yaml");
    free(path);
    path = located("/argument.yaml");
    cr_expect_str_eq(path, "/argument.yaml");
    free(path);
    unlink("tiermq.yaml");
    rmdir(directory);
}

Test(config, the_example_file_is_the_defaults)
{
    struct config *defaults = NULL;
    struct config *example = NULL;
    struct config_errors errors;
    cr_assert_eq(config_read(NULL, &defaults, &errors), 0);
    const int r = config_read(TIERMQ_EXAMPLE, &example, &errors);
    cr_assert_eq(r, 0, "%s", errors.length > 0 ? errors.items[0].text : "");
    expect_equal(defaults, example);
    config_destroy(&defaults);
    config_destroy(&example);
}

static char *read_file(const char *path)
{
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    char *text = calloc(1, 1 << 20);
    cr_assert_gt(fread(text, 1, (1 << 20) - 1, file), 0);
    fclose(file);
    return text;
}

Test(config, the_page_of_the_keys_is_up_to_date)
{
    char *reference = NULL;
    size_t bytes;
    FILE *out = open_memstream(&reference, &bytes);
    cr_assert_eq(config_write_reference(out), 0);
    fclose(out);
    char *page = read_file(TIERMQ_REFERENCE);
    cr_expect(strcmp(reference, page) == 0, "run: tiermq config reference >docs/configuration.md");
    free(page);
    free(reference);
}

/* ----------------------------------------------------------------------------------------- written and compared */

Test(config, what_is_written_reads_the_same_again)
{
    static const char *const texts[] = {
        "",
        "pools: [default, eu-west, gpu]\nworker: {pools: [eu-west, gpu], name: w1}\nclient: {tenant: 'a:b/c@d'}\n",
        "tiers: [{name: only, deadline: 90001ms, bytes_max: 1048577, backoff_max: 61s}]\n",
        "broker: {data_dir: '/a \"quoted\\ $${X} # : path', admin: 'unix:/run/a b'}\ncache: {judge_cosine_min: 0.905}\n",
        "cache: {embedder: {kind: http, model: 'a b', dim: 3, asks_for_dim: on, timeout: 70ms}}\n",
        ("models: [{name: 'null', provider: sim, provider_model: '- x', output_usd_per_mtok: 0.000000007}]\n"
         "routes: [{name: r, models: ['null'], tiers: {standard: ['null']}}]\n"),
    };
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        struct config *config = read_good(texts[i]);
        char *text = written(config);
        struct config *again = read_good(text);
        expect_equal(config, again);
        cr_expect_eq(config_diff_restart(config, again, NULL), 0);
        free(text);
        config_destroy(&config);
        config_destroy(&again);
    }
}

static size_t differences(const char *before_text, const char *after_text, char **ret_names)
{
    struct config *before = read_good(before_text);
    struct config *after = read_good(after_text);
    size_t bytes;
    FILE *out = open_memstream(ret_names, &bytes);
    const size_t n = config_diff_restart(before, after, out);
    fclose(out);
    config_destroy(&before);
    config_destroy(&after);
    return n;
}

Test(config, only_what_cannot_change_alive_needs_a_restart)
{
    char *names;
    cr_expect_eq(differences("", "log: {level: debug}\nmodels: [{name: m, provider: sim}]\n", &names), 0, "%s", names);
    free(names);
    cr_expect_eq(differences("tiers: [{name: a, weight: 1}]\n", "tiers: [{name: a, weight: 2, jobs_max: 7}]\n", &names), 0,
                 "%s", names);
    free(names);
    cr_expect_eq(differences("tiers: [{name: a}]\n", "tiers: [{name: a, durability: none}]\n", &names), 1);
    cr_expect_str_eq(names, "tiers[0].durability\n");
    free(names);
    cr_expect_eq(differences("tiers: [{name: a}]\n", "tiers: [{name: b}]\n", &names), 1);
    cr_expect_str_eq(names, "tiers\n");
    free(names);
    cr_expect_eq(differences("", "providers: [{name: p, base_url: 'http://x'}]\nmodels: [{name: m, provider: p}]\n", &names), 1);
    cr_expect_str_eq(names, "providers\n");
    free(names);
    cr_expect_eq(differences("", "pools: [default, b]\nbroker: {store: memory, data_dir: /x}\n", &names), 3);
    cr_expect_str_eq(names, "broker.data_dir\nbroker.store\npools\n");
    free(names);
    cr_expect_eq(differences("", "cache: {embedder: {kind: static, path: /m}}\n", &names), 2);
    cr_expect_str_eq(names, "cache.embedder.kind\ncache.embedder.path\n");
    free(names);
}

Test(config, a_reload_keeps_what_needs_a_restart_and_takes_the_rest)
{
    struct config *running = read_good("broker: {name: one, lease: 20s, result_ttl: 1m}\n"
                                       "tiers: [{name: a, pool: eu, weight: 1}]\npools: [default, eu]\n");
    struct config *next = read_good("broker: {name: two, lease: 5s, heartbeat: 1s, result_ttl: 2m}\n"
                                    "tiers: [{name: a, durability: none, weight: 2}]\n"
                                    "tenants: [{name: acme}]\n");
    const char *borrowed = running->broker.name;
    config_carry_over(running, next);
    config_destroy(&running);
    cr_expect_eq(next->broker.name, borrowed, "what was borrowed lives on");
    cr_expect_str_eq(next->broker.name, "one");
    cr_expect_eq(next->broker.lease_ms, 20000);
    cr_expect_eq(next->broker.heartbeat_ms, 3000);
    cr_expect_eq(next->broker.result_ttl_ms, 120000);
    cr_expect_str_eq(next->tiers[0].pool, "eu");
    cr_expect_eq(next->tiers[0].durability, DURABILITY_FSYNC);
    cr_expect_eq(next->tiers[0].weight, 2);
    cr_expect_eq(next->pools_length, 2);
    cr_expect_str_eq(next->tenants[0].name, "acme");
    config_destroy(&next);
}

Test(config, a_reload_keeps_the_set_of_tiers)
{
    struct config *running = read_good("");
    struct config *next = read_good("tiers: [{name: only}]\n");
    config_carry_over(running, next);
    config_destroy(&running);
    cr_assert_eq(next->tiers_length, 3);
    cr_expect_str_eq(next->tiers[0].name, "realtime");
    config_destroy(&next);
}

/* ------------------------------------------------------------------------------------------------------ property */

static uint32_t next_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

/* Whatever is done to a good file, it is either read or refused with reasons, and nothing else happens. */
Test(config, a_damaged_file_is_read_or_refused_with_a_reason)
{
    const char *seed_text = getenv("TIERMQ_TEST_SEED");
    const uint64_t seed = seed_text != NULL ? strtoull(seed_text, NULL, 10) : (uint64_t)time(NULL);
    uint64_t state = seed;
    fprintf(stderr, "TIERMQ_TEST_SEED=%" PRIu64 "\n", seed);
    struct config *defaults = read_good("");
    char *good = written(defaults);
    const size_t bytes = strlen(good);
    char *damaged = malloc(bytes + 1);
    static const char marks[] = "\n :-[]{}\"'#&*!|>%@`,0a\x80$";
    for (int round = 0; round < 400; round++) {
        memcpy(damaged, good, bytes + 1);
        const uint32_t n_changes = 1 + next_random(&state) % 3;
        for (uint32_t i = 0; i < n_changes; i++) {
            damaged[next_random(&state) % bytes] = marks[next_random(&state) % (sizeof(marks) - 1)];
        }
        struct config *config = NULL;
        struct config_errors errors;
        const int r = config_read_text(damaged, next_random(&state) % 2 ? bytes : next_random(&state) % bytes, "damaged",
                                       &config, &errors);
        cr_assert(r == 0 || r == -EINVAL, "seed %" PRIu64 " round %d: %d", seed, round, r);
        cr_assert_eq(r == 0, errors.length == 0, "seed %" PRIu64 " round %d", seed, round);
        cr_assert_eq(r == 0, config != NULL);
        config_errors_finish(&errors);
        config_destroy(&config);
    }
    free(damaged);
    free(good);
    config_destroy(&defaults);
}

/* Models m0 … at one provider; `more` goes with the last one, `routes` after them. */
static char *many_models(int length, const char *more, const char *routes)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    fputs("providers: [{name: p, base_url: \"http://x/v1\"}, {name: q, base_url: \"http://x/v1\"}]\nmodels:\n",
          out);
    for (int i = 0; i < length; i++) {
        fprintf(out, "- {name: m%d, provider: p, quality: %d%s}\n", i, i,
                i == length - 1 ? more : "");
    }
    fputs(routes, out);
    fclose(out);
    return text;
}

static void expect_of_many(int length, const char *more, const char *routes, const char *error)
{
    char *text = many_models(length, more, routes);
    if (error != NULL) {
        expect_error_with(text, error);
    } else {
        struct config *config = read_good(text);
        config_destroy(&config);
    }
    free(text);
}

Test(config, route_that_names_more_than_are_compared_is_refused)
{
    static const char few[] = "routes: [{name: auto, models: [m0, m17]}]\n";
    expect_of_many(16, "", "", NULL);
    expect_of_many(18, "", "",
                   "routes[].models: \"auto\" has 18 models at providers in tier realtime, and 16 at most are "
                   "compared: p/m16, p/m17 would never be called; write a route `auto` with those it is to have");
    expect_of_many(16, ", failover: [p, q]", "", "compared: q/m15 would never");
    expect_of_many(18, "", few, NULL);
    expect_of_many(60, "", "", "and others would never be called; write a route `auto`");
}

/* At the line of what has to be changed. */
Test(config, route_of_its_own_with_too_many_is_shown_where_it_stands)
{
    static const char few[] = "routes:\n- {name: auto, models: [m0]}\n- name: wide\n  models: [";
    char routes[256];
    size_t length = (size_t)snprintf(routes, sizeof(routes), "%sm0", few);
    for (int i = 1; i < 17; i++) {
        length += (size_t)snprintf(routes + length, sizeof(routes) - length, ", m%d", i);
    }
    (void)snprintf(routes + length, sizeof(routes) - length, "]\n");
    expect_of_many(17, "", routes,
                   ":22:3: routes[].models: \"wide\" has 17 models at providers in tier realtime, and "
                   "16 at most are compared: p/m16 would never be called; list fewer");
}

#define GRADES_40_70_90                                                                            \
    "providers: [{name: p, base_url: \"http://x/v1\", residency: [eu]}, "                          \
    "{name: q, base_url: \"http://x/v1\", residency: [us]}]\n"                                    \
    "models: [{name: low, provider: p, quality: 40}, {name: mid, provider: p, quality: 70}, "      \
    "{name: top, provider: q, quality: 90}]\n"

Test(config, floor_that_no_model_of_a_route_meets_is_refused)
{
    static const struct {
        const char *text, *error;
    } mistakes[] = {
        {GRADES_40_70_90 "tiers:\n- {name: standard, quality_min: 95}\n",
         ":4:3: routes[].models: \"auto\" has no model that meets the floor of tier standard, "
         "quality_min 95: its best is top, of grade 90; lower the floor, or write a route `auto` "
         "with a better one"},
        {"tiers: [{name: background, quality_min: 80}]",
         "routes[].tiers: \"auto\" has no model that meets the floor of tier background, quality_min "
         "80: its best is sim-small, of grade 40"},
        {GRADES_40_70_90 "tiers: [{name: a}, {name: b, quality_min: 71}]\n"
                         "routes: [{name: cheap, models: [low, mid]}]\n",
         "\"cheap\" has no model that meets the floor of tier b, quality_min 71: its best is mid, of "
         "grade 70; lower the floor, or list a better one, for that tier under tiers"},
        {GRADES_40_70_90 "tiers: [{name: a}, {name: b, quality_min: 80}]\n"
                         "routes: [{name: r, models: [top], tiers: {b: [low]}}]\n",
         "routes[].tiers: \"r\" has no model that meets the floor of tier b"},
        {GRADES_40_70_90 "tiers: [{name: a, quality_min: 80}]\n"
                         "routes: [{name: r, models: [low], choice: listed}]\n",
         "\"r\" has no model that meets the floor of tier a"},
    };
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        expect_error_with(mistakes[i].text, mistakes[i].error);
    }
    struct config *met =
        read_good(GRADES_40_70_90 "tiers: [{name: a}, {name: b, quality_min: 90}]\n"
                                  "routes: [{name: cheap, models: [low], tiers: {b: [low, top]}}]\n");
    config_destroy(&met);
}

Test(config, tenants_label_that_leaves_its_jobs_to_nobody_is_refused)
{
    static const struct {
        const char *text, *error;
    } mistakes[] = {
        {GRADES_40_70_90 "tenants:\n- {name: default}\n- {name: clinic, residency: eü}\n",
         ":5:3: tenants[1].residency: no provider has the label \"eü\"; add it under "
         "providers[].residency, or write one of those there: eu, us"},
        {"tenants: [{name: clinic, residency: eu}]",
         "tenants[0].residency: no provider has the label \"eu\"; add it under "
         "providers[].residency"},
        {GRADES_40_70_90 "tenants: [{name: clinic, residency: us, models: [low, mid]}]\n",
         "tenants[0].models: none of them is at a provider with the tenant's residency label "
         "\"us\""},
    };
    for (size_t i = 0; i < sizeof(mistakes) / sizeof(mistakes[0]); i++) {
        expect_error_with(mistakes[i].text, mistakes[i].error);
    }
    struct config *good = read_good(
        "providers: [{name: p, base_url: \"http://x/v1\"}, "
        "{name: q, base_url: \"http://x/v1\", residency: [us, ch]}]\n"
        "models: [{name: a, provider: p}, {name: b, provider: p, failover: [q]}]\n"
        "tenants: [{name: clinic, residency: ch, models: [a, b]}, {name: free, models: [a]}]\n");
    config_destroy(&good);
}

Test(config, model_with_more_stand_ins_than_are_compared_is_refused)
{
    char text[4096], models[2048] = "";
    size_t length = 0;
    for (int i = 0; i < 9; i++) {
        length += (size_t)snprintf(models + length, sizeof(models) - length,
                                   "- {name: m%d, provider: p, failover: [q]}\n", i);
    }
    for (int i = 7; i < 9; i++) {
        (void)snprintf(text, sizeof(text),
                       "providers: [{name: p, base_url: \"http://x/v1\"}, {name: q, base_url: \"http://x/v1\"}]\n"
                       "routes: [{name: auto, models: [m0]}]\nmodels:\n%s"
                       "- {name: last, provider: p, fallback: [%s]}\n",
                       models,
                       i == 7 ? "m0, m1, m2, m3, m4, m5, m6" : "m0, m1, m2, m3, m4, m5, m6, m7");
        if (i == 7) {
            struct config *config = read_good(text);
            config_destroy(&config);
        } else {
            expect_error_with(text, "models[].fallback: \"last\" has 17 models");
        }
    }
}

/* What is below every tier's floor is no candidate. */
Test(config, models_below_the_floor_do_not_count)
{
    static const char floor[] = "tiers: [{name: a, quality_min: 10}]\n";
    expect_of_many(26, "", floor, NULL);
    expect_of_many(27, "", floor, "has 17 models at providers in tier a");
}

Test(config, reference_model_and_what_budgets_are_of_have_to_be_configured)
{
    expect_error_with("models: [{name: a, provider: p}]\n"
                      "providers: [{name: p, base_url: \"http://x/v1\"}]\n"
                      "cost: {reference_model: b}\n",
                      "cost.reference_model: \"b\" is not a model; write the name of one in models");
    expect_error_with("budgets: [{name: x, tenant: nobody, daily_usd: 1}]\n",
                      "budgets[0].tenant: \"nobody\" is not a tenant; write the name of one in tenants");
    expect_error_with("budgets: [{name: x, tier: slow, daily_usd: 1}]\n",
                      "budgets[0].tier: \"slow\" is not a tier; write the name of one in tiers");
    expect_error_with("budgets: [{name: x, tenant: acme, tier: '', daily_usd: 1}]\n"
                      "tenants: [{name: default}]\n",
                      "budgets[0].tenant: \"acme\" is not a tenant");
    expect_error_with("budgets: [{name: x, daily_usd: 1}]\n",
                      "budgets[0]: tenant and tier are both missing; give one of them, or both");
    expect_error_with("budgets: [{name: x, tenant: default, soft_share: 0.5}]\n",
                      "budgets[0]: daily_usd and monthly_usd are both missing, so it limits nothing; "
                      "give one of them, or both");
    config_destroy(&(struct config *){read_good("budgets: [{name: x, tenant: default, monthly_usd: 0}]\n")});
    config_destroy(&(struct config *){read_good("budgets: [{name: x, tenant: default, tier: '', daily_usd: 1}]\n")});
    struct config *good = read_good("models: [{name: a, provider: p}]\n"
                                    "providers: [{name: p, base_url: \"http://x/v1\"}]\n"
                                    "cost: {reference_model: a}\n");
    config_destroy(&good);
}
