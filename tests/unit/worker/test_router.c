#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "worker/route/router.h"

static const char yaml[] = "providers:\n"
                           "  - {name: near, type: openai, base_url: 'http://127.0.0.1:1/v1'}\n"
                           "  - {name: far, type: openai, base_url: 'http://127.0.0.1:2/v1'}\n"
                           "models:\n"
                           "  - {name: small, provider: near, provider_model: small-1}\n"
                           "  - {name: big, provider: far}\n"
                           "routes:\n"
                           "  - name: smart\n"
                           "    models: [big, small]\n"
                           "    tiers: {realtime: [small, big]}\n";

static struct config *read_config(const char *text)
{
    struct config *config = NULL;
    struct config_errors errors = {.items = NULL};
    int r = config_read_text(text, strlen(text), "test", &config, &errors);
    cr_assert_eq(r, 0, "%s", errors.length > 0 ? errors.items[0].text : "");
    config_errors_finish(&errors);
    return config;
}

static const char *chosen(const struct config *config, const char *tier, const char *route)
{
    struct router_choice choice;
    cr_assert_eq(router_choose(config, tier, route, &choice), 0, "%s", choice.reason);
    cr_assert_str_eq(choice.provider->name, choice.model->provider);
    cr_assert_str_neq(choice.reason, "");
    return choice.model->name;
}

Test(router, a_model_named_by_the_job_is_respected)
{
    struct config *config = read_config(yaml);
    cr_assert_str_eq(chosen(config, "realtime", "big"), "big");
    cr_assert_str_eq(chosen(config, "background", "small"), "small");
    config_destroy(&config);
}

Test(router, an_alias_is_served_by_its_list_for_the_tier)
{
    struct config *config = read_config(yaml);
    cr_assert_str_eq(chosen(config, "realtime", "smart"), "small");
    cr_assert_str_eq(chosen(config, "standard", "smart"), "big");
    config_destroy(&config);
}

Test(router, auto_without_an_entry_is_the_first_model)
{
    struct config *config = read_config(yaml);
    cr_assert_str_eq(chosen(config, "standard", "auto"), "small");
    config_destroy(&config);
}

Test(router, an_unknown_route_says_so)
{
    struct config *config = read_config(yaml);
    struct router_choice choice;
    cr_assert_eq(router_choose(config, "standard", "gone", &choice), -ENOENT);
    cr_assert_not_null(strstr(choice.reason, "gone"));
    config_destroy(&config);
}

static const char failover[] = "providers:\n"
                               "  - {name: near, type: openai, base_url: 'http://127.0.0.1:1/v1'}\n"
                               "  - {name: far, type: openai, base_url: 'http://127.0.0.1:2/v1'}\n"
                               "  - {name: other, type: openai, base_url: 'http://127.0.0.1:3/v1'}\n"
                               "models:\n"
                               "  - {name: small, provider: near, failover: [far]}\n";

Test(router, an_upstream_named_by_the_broker_is_taken)
{
    struct config *config = read_config(failover);
    struct router_choice choice;
    cr_assert_eq(router_take(config, "near", "small", false, &choice), 0);
    cr_assert_str_eq(choice.provider->name, "near");
    cr_assert_str_eq(choice.reason, "named by the broker: near/small");
    cr_assert_eq(router_take(config, "far", "small", true, &choice), 0);
    cr_assert_str_eq(choice.provider->name, "far");
    cr_assert_str_eq(choice.model->name, "small");
    cr_assert_not_null(strstr(choice.reason, "probe"));
    config_destroy(&config);
}

Test(router, an_upstream_that_is_not_here_is_said)
{
    struct config *config = read_config(failover);
    struct router_choice choice;
    cr_assert_eq(router_take(config, "near", "huge", false, &choice), -ENOENT);
    cr_assert_not_null(strstr(choice.reason, "huge"));
    cr_assert_eq(router_take(config, "nowhere", "small", false, &choice), -ENODEV);
    cr_assert_not_null(strstr(choice.reason, "nowhere"));
    cr_assert_eq(router_take(config, "other", "small", false, &choice), -ENODEV,
                 "a provider that does not serve the model");
    config_destroy(&config);
}
