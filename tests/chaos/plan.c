#include "tests/chaos/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include "tests/simulation/dice.h"

enum {
    DEADLINE_FAR_MS = 1800 * 1000, /* later than the end of any campaign */
    TWINS = 50,                    /* prompts that others ask as well, also other tenants */
    SHARERS = 8, /* of so many numbers in a row, those that are shared are one job */
};

static const char *const tiers[] = {"realtime", "standard", "background"};

static uint64_t text_hash(const char *text)
{
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */
    for (; *text != '\0'; text++) {
        hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
    }
    return hash;
}

static bool percent(struct dice *dice, uint32_t chance)
{
    return dice_hit(dice, chance * 10);
}

static char *write_prompt(const char *who, uint64_t number, int64_t padding_words)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (out == NULL) {
        abort();
    }
    fprintf(out, "%s asks question %llu: why?", who, (unsigned long long)number);
    for (int64_t i = 0; i < padding_words; i++) {
        fputs(" because", out);
    }
    if (fclose(out) != 0) {
        abort();
    }
    return text;
}

static void set_tier(struct plan *plan, size_t tier)
{
    plan->tier = tiers[tier];
    plan->is_durable = tier > 0;
}

/* The same job for all clients of a tenant: whoever comes first submits it, the others join. */
static void make_shared(struct plan *plan, uint64_t group)
{
    struct dice dice = {.state = group};
    set_tier(plan, dice_below(&dice, 3));
    plan->lasts_ms = DEADLINE_FAR_MS;
    plan->prompt = write_prompt("The team", group, 0);
    snprintf(plan->key, sizeof(plan->key), "shared-%llu", (unsigned long long)group);
}

static void make_times(struct plan *plan, struct dice *dice)
{
    plan->lasts_ms = percent(dice, 12) ? dice_between(dice, 300, 5300) : DEADLINE_FAR_MS;
    plan->delay_ms = percent(dice, 10) ? dice_between(dice, 100, 2100) : 0;
    plan->cancel_after_ms = percent(dice, 6) ? dice_between(dice, 1, 1500) : 0;
}

static void make_prompt(struct plan *plan, struct dice *dice, const char *client, uint64_t number)
{
    if (percent(dice, 10)) {
        plan->prompt = write_prompt("Everyone", number % TWINS, 0);
        return;
    }
    const int64_t padding_words = percent(dice, 3) ? dice_between(dice, 1000, 9000) : 0;
    plan->prompt = write_prompt(client, number, padding_words);
}

static void make_own(struct plan *plan, struct dice *dice, const char *client, uint64_t number)
{
    const uint64_t tier = dice_below(dice, 10);
    set_tier(plan, tier < 3 ? 0 : tier < 7 ? 1 : 2);
    plan->operation = percent(dice, 15) ? "completions" : plan->operation;
    plan->priority = (unsigned)dice_below(dice, 10);
    plan->stream = percent(dice, 15);
    plan->detach = plan->is_durable && percent(dice, 6);
    plan->discard = plan->is_durable && !plan->detach && percent(dice, 3);
    plan->ask_again = percent(dice, 6);
    plan->again_by_submit = plan->is_durable && percent(dice, 50);
    make_times(plan, dice);
    make_prompt(plan, dice, client, number);
    if (percent(dice, 20)) {
        snprintf(plan->key, sizeof(plan->key), "%.32s-%llu", client, (unsigned long long)number);
    }
}

void plan_make(const char *client, uint64_t seed, uint64_t number, struct plan *ret_plan)
{
    struct dice dice = {.state = seed ^ text_hash(client) ^ number * UINT64_C(0xd6e8feb86659fd93)};
    *ret_plan = (struct plan){.operation = "chat.completions"};
    if (percent(&dice, 8)) {
        make_shared(ret_plan, number / SHARERS);
    } else {
        make_own(ret_plan, &dice, client, number);
    }
}

void plan_finish(struct plan *plan)
{
    free(plan->prompt);
    plan->prompt = NULL;
}
