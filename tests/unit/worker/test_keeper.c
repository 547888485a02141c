#include "tests/unit/remove_tree.h"
#include "worker/cache/keeper.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char directory[] = "/tmp/tiermq-keeper-XXXXXX";
static char path[64];
static struct keeper *keeper;
static struct keeper_options options;
static char error[CACHE_ERROR_BYTES];
static const int64_t NOW = INT64_C(1800000000000);

static void open_keeper(void)
{
    cr_assert_eq(keeper_open(&options, &keeper, error), 0, "%s", error);
}

static void start(void)
{
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/cache", directory);
    options = (struct keeper_options){
        .store = {.path = path, .write_buffer_bytes = 1 << 20, .block_cache_bytes = 1 << 20},
        .is_near = true,
        .entries_max = 1000,
        .bytes_max = 1 << 30,
        .memory_bytes_max = 64 << 20};
    open_keeper();
}

static void stop(void)
{
    keeper_close(&keeper);
    remove_tree(directory);
}

TestSuite(keeper, .init = start, .fini = stop, .timeout = 60);

/* What the tests change before they fill. */
struct filling {
    char *text, *tag;
    uint8_t scope;
    uint64_t ttl_ms, stale_ms, cost_nanousd, born, history_tokens, passages_tokens;
    size_t body_bytes;
};

/* Spread, as hashes are. */
static uint8_t key_of(uint8_t number)
{
    return (uint8_t)(number * 151);
}

static void fill(uint8_t number, struct filling filling)
{
    const uint8_t key[CACHE_KEY_BYTES] = {key_of(number)};
    uint8_t scope[CACHE_SCOPE_BYTES] = {filling.scope};
    char body[65536];
    Record__CacheAbout about = RECORD__CACHE_ABOUT__INIT;
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    memset(body, 'a' + number % 26, sizeof(body));
    entry.about = &about;
    const int bytes = filling.body_bytes > 0
                          ? (int)filling.body_bytes
                          : snprintf(body, sizeof(body), "{\"choices\":[%d]}", number);
    entry.body = (ProtobufCBinaryData){(size_t)bytes, (uint8_t *)body};
    about.tenant = "shop";
    about.text = filling.text == NULL ? about.text : filling.text;
    about.scope = (ProtobufCBinaryData){filling.text == NULL ? 0 : CACHE_SCOPE_BYTES, scope};
    about.tags = &filling.tag;
    about.n_tags = filling.tag != NULL;
    about.filled_unix_ms = (uint64_t)NOW;
    about.expires_unix_ms = (uint64_t)NOW + (filling.ttl_ms > 0 ? filling.ttl_ms : 60000);
    about.stale_until_unix_ms = about.expires_unix_ms + filling.stale_ms;
    about.cost_nanousd = filling.cost_nanousd;
    about.cut_history_tokens = filling.history_tokens;
    about.cut_passages_tokens = filling.passages_tokens;
    cr_assert_eq(keeper_fill(keeper, key, &entry, NULL, false, filling.born, NOW, error), 0, "%s",
                 error);
}

static struct cache_result look_for(uint8_t number, const char *text, double threshold, int64_t at,
                                    bool may_be_stale)
{
    struct cache_query query = {.key = {key_of(number)},
                                .threshold = threshold,
                                .scope = {1},
                                .may_be_stale = may_be_stale};
    struct cache_result result;
    query.text = text;
    query.may_be_near = text != NULL;
    cr_assert_eq(keeper_lookup(keeper, &query, at, &result, error), 0, "%s", error);
    if (result.entry != NULL) {
        record__cache_entry__free_unpacked(result.entry, NULL);
        result.entry = NULL;
    }
    return result;
}

static struct cache_result look(uint8_t number, const char *text, double threshold, int64_t at)
{
    return look_for(number, text, threshold, at, true);
}

static void sweep(void)
{
    for (int i = 0; i < 1000; i++) {
        const int r = keeper_step(keeper, NOW + i, error);
        cr_assert_geq(r, 0, "%s", error);
        if (r == 0) {
            return;
        }
    }
    cr_assert_fail("a sweep does not end");
}

static struct keeper_stats stats(void)
{
    struct keeper_stats all;
    keeper_read_stats(keeper, &all);
    return all;
}

Test(keeper, same_key_is_a_hit_also_after_a_restart)
{
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_MISS);
    fill(1, (struct filling){0});
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_HIT);
    keeper_close(&keeper);
    open_keeper();
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_HIT);
    cr_assert_eq(stats().store.entries, 1);
}

Test(keeper, near_text_is_a_hit_from_the_threshold_on_and_in_its_scope_alone)
{
    fill(1, (struct filling){.text = "How much does the city museum cost on Sundays?", .scope = 1});
    const char *text = "how much does the city museum cost on sundays";
    const struct cache_result unsure = look(2, text, INFINITY, NOW);
    cr_assert_eq(unsure.answer, CACHE_ANSWER_MISS);
    cr_assert(unsure.has_candidate);
    cr_assert_str_eq(unsure.why, "closed");
    cr_assert_eq(look(2, text, unsure.score, NOW).answer, CACHE_ANSWER_NEAR_HIT);
    keeper_invalidate(keeper, NULL, NOW);
    fill(1, (struct filling){
                .text = "How much does the city museum cost on Sundays?", .scope = 9, .born = 1});
    cr_assert_not(look(2, text, -100, NOW).has_candidate, "another scope");
}

Test(keeper, index_is_built_again_after_a_restart)
{
    fill(1, (struct filling){.text = "Which trains run at night?", .scope = 1});
    keeper_close(&keeper);
    open_keeper();
    cr_assert(stats().is_building);
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_HIT, "exact hits need no index");
    sweep();
    cr_assert_not(stats().is_building);
    cr_assert_eq(look(2, "which trains run at night", 0, NOW).answer, CACHE_ANSWER_NEAR_HIT);
}

Test(keeper, entry_is_stale_past_its_time_and_gone_past_all_use)
{
    fill(1, (struct filling){.ttl_ms = 1000, .stale_ms = 5000});
    cr_assert_not(look(1, NULL, INFINITY, NOW + 999).is_stale);
    const struct cache_result stale = look(1, NULL, INFINITY, NOW + 1000);
    cr_assert_eq(stale.answer, CACHE_ANSWER_HIT);
    cr_assert(stale.is_stale);
    cr_assert_eq(stale.age_ms, 1000);
    struct cache_query query = {.key = {key_of(1)}};
    struct cache_result result;
    cr_assert_eq(keeper_lookup(keeper, &query, NOW + 1000, &result, error), 0);
    cr_assert_eq(result.answer, CACHE_ANSWER_MISS, "who does not take stale ones");
    cr_assert_eq(look(1, NULL, INFINITY, NOW + 6000).answer, CACHE_ANSWER_MISS);
    cr_assert_eq(stats().store.entries, 0);
}

static struct cache_result look_cut(uint8_t number, const char *text, struct prompt_cut allowed,
                                    int64_t at)
{
    const struct cache_query query = {.key = {key_of(number)},
                                      .threshold = text == NULL ? INFINITY : 0,
                                      .scope = {1},
                                      .text = text,
                                      .may_be_near = text != NULL,
                                      .may_be_stale = true,
                                      .prompt_cut = allowed};
    struct cache_result result;
    cr_assert_eq(keeper_lookup(keeper, &query, at, &result, error), 0, "%s", error);
    if (result.entry != NULL) {
        record__cache_entry__free_unpacked(result.entry, NULL);
    }
    return result;
}

Test(keeper, answer_from_a_cut_prompt_is_for_those_who_allow_as_much)
{
    static const struct {
        struct prompt_cut made_with, allowed;
        bool suits;
    } cases[] = {{{0, 0}, {0, 0}, true},         {{0, 0}, {100, 100}, true},
                 {{100, 0}, {0, 0}, false},      {{100, 0}, {100, 0}, true},
                 {{100, 0}, {99, 0}, true},      {{100, 0}, {101, 0}, false},
                 {{100, 0}, {0, 100}, false},    {{0, 100}, {100, 0}, false},
                 {{100, 100}, {100, 0}, false},  {{100, 100}, {100, 100}, true},
                 {{100, 100}, {100, 101}, false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fill(1, (struct filling){.history_tokens = cases[i].made_with.history_tokens,
                                 .passages_tokens = cases[i].made_with.passages_tokens,
                                 .ttl_ms = i % 2 == 0 ? 1000 : 0, /* stale ones as well */
                                 .stale_ms = 5000});
        const struct cache_result result = look_cut(1, NULL, cases[i].allowed, NOW + 1500);
        cr_assert_eq(result.answer, cases[i].suits ? CACHE_ANSWER_HIT : CACHE_ANSWER_MISS,
                     "case %zu", i);
        cr_assert(cases[i].suits || strcmp(result.why, "cut") == 0);
    }
    cr_assert_eq(stats().store.entries, 1, "it stays for the others");
}

Test(keeper, near_answer_from_a_cut_prompt_hides_no_whole_one)
{
    const char *text = "which trains run at night";
    fill(1,
         (struct filling){.text = "Which trains run at night?", .scope = 1, .history_tokens = 100});
    const struct prompt_cut none = {0, 0};
    const struct prompt_cut as_much = {.history_tokens = 100};
    cr_assert_eq(look_cut(3, text, as_much, NOW).answer, CACHE_ANSWER_NEAR_HIT);
    cr_assert_not(look_cut(3, text, none, NOW).has_candidate);
    cr_assert_not(look(3, text, INFINITY, NOW).has_candidate, "nor is it compared");
    fill(2, (struct filling){.text = "Which trains run at night there?", .scope = 1});
    const struct cache_result whole = look_cut(3, text, none, NOW);
    cr_assert_eq(whole.answer, CACHE_ANSWER_NEAR_HIT);
    cr_assert_eq(whole.key[0], key_of(2));
    cr_assert_eq(look_cut(3, text, as_much, NOW).key[0], key_of(1));
}

static void invalidate(char *tag)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.tag = tag;
    keeper_invalidate(keeper, &selector, NOW);
}

Test(keeper, invalidation_holds_at_once_and_is_swept_by_and_by)
{
    fill(1, (struct filling){.tag = "prices"});
    fill(2, (struct filling){.tag = "hours"});
    invalidate("prices");
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_MISS);
    cr_assert_eq(look(2, NULL, INFINITY, NOW).answer, CACHE_ANSWER_HIT);
    cr_assert_lt(keeper_swept(keeper), 1);
    sweep();
    cr_assert_eq(keeper_swept(keeper), 1);
    cr_assert_eq(stats().store.entries, 1);
}

Test(keeper, near_hit_is_invalidated_too)
{
    fill(1, (struct filling){.text = "Which trains run at night?", .scope = 1, .tag = "trains"});
    cr_assert_eq(look(2, "which trains run at night", 0, NOW).answer, CACHE_ANSWER_NEAR_HIT);
    invalidate("trains");
    cr_assert_eq(look(2, "which trains run at night", 0, NOW).answer, CACHE_ANSWER_MISS);
}

Test(keeper, an_invalid_candidate_hides_no_valid_one)
{
    fill(1, (struct filling){.text = "Which trains run at night?", .scope = 1, .tag = "old"});
    fill(2, (struct filling){.text = "Which trains run at night there?", .scope = 1, .tag = "new"});
    cr_assert_eq(look(3, "which trains run at night", INFINITY, NOW).key[0], key_of(1),
                 "it is the best");
    invalidate("old");
    const struct cache_result unsure = look(3, "which trains run at night", INFINITY, NOW);
    cr_assert(unsure.has_candidate);
    cr_assert_eq(unsure.key[0], key_of(2));
    fill(1, (struct filling){
                .text = "Which trains run at night?", .scope = 1, .tag = "old", .born = 1});
    invalidate("old");
    const struct cache_result hit = look(3, "which trains run at night", unsure.score, NOW);
    cr_assert_eq(hit.answer, CACHE_ANSWER_NEAR_HIT);
    cr_assert_eq(hit.key[0], key_of(2));
}

Test(keeper, what_is_past_its_time_is_no_candidate_to_learn_from)
{
    const char *text = "which trains run at night";
    fill(1,
         (struct filling){
             .text = "Which trains run at night?", .scope = 1, .ttl_ms = 1000, .stale_ms = 5000});
    cr_assert(look(2, text, INFINITY, NOW + 999).has_candidate);
    cr_assert_not(look(2, text, INFINITY, NOW + 1000).has_candidate);
    const struct cache_result stale = look(2, text, 0, NOW + 1000);
    cr_assert_eq(stale.answer, CACHE_ANSWER_NEAR_HIT, "who takes stale ones");
    cr_assert(stale.is_stale);
    cr_assert_not(look_for(2, text, 0, NOW + 1000, false).has_candidate);
}

Test(keeper, an_entry_is_no_candidate_for_its_own_question)
{
    const char *text = "Which trains run at night?";
    fill(1, (struct filling){.text = (char *)text, .scope = 1, .ttl_ms = 1000, .stale_ms = 5000});
    const struct cache_result old = look_for(1, text, INFINITY, NOW + 2000, false);
    cr_assert_eq(old.answer, CACHE_ANSWER_MISS);
    cr_assert_not(old.has_candidate);
    cr_assert_str_eq(old.why, "stale");
}

Test(keeper, everything_near_a_text_can_be_invalidated)
{
    fill(1, (struct filling){.text = "Which trains run at night?", .scope = 1});
    fill(2, (struct filling){.text = "What does the city museum cost?", .scope = 1});
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.near_text = "what trains run during the night";
    selector.near_cosine_min = 0.4;
    keeper_invalidate(keeper, &selector, NOW);
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_MISS);
    cr_assert_eq(look(2, NULL, INFINITY, NOW).answer, CACHE_ANSWER_HIT);
}

/* As many as this ask what is near a text that no entry is near to. */
static void invalidate_near(int many)
{
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.near_text = "an elephant in the bathtub";
    selector.near_cosine_min = 0.9;
    for (int i = 0; i < many; i++) {
        keeper_invalidate(keeper, &selector, NOW);
    }
}

Test(keeper, a_step_compares_so_many_texts_however_many_are_asked_for)
{
    for (uint8_t i = 0; i < 30; i++) {
        fill(i, (struct filling){.text = "Which trains run at night?", .scope = 1});
    }
    sweep();
    invalidate_near(500);
    const int64_t later = NOW + 3600000; /* all are past all use */
    cr_assert_eq(keeper_step(keeper, later, error), 2, "there is more to do at once");
    cr_assert_leq(stats().expired, 3, "a step looked at %llu entries",
                  (unsigned long long)stats().expired);
    for (int i = 0; i < 20; i++) {
        cr_assert_geq(keeper_step(keeper, later, error), 0);
    }
    cr_assert_eq(stats().expired, 30);
    cr_assert_eq(keeper_swept(keeper), 500);
}

Test(keeper, fill_that_began_before_an_invalidation_is_dropped)
{
    const uint64_t born = keeper_latest(keeper);
    invalidate("prices");
    fill(1, (struct filling){.tag = "prices", .born = born});
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_MISS);
    cr_assert_eq(stats().dropped_fills, 1);
    fill(1, (struct filling){.tag = "prices", .born = keeper_latest(keeper)});
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_HIT);
    sweep();
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_HIT, "it came after");
}

Test(keeper, forgotten_invalidations_still_keep_old_fills_out)
{
    invalidate("prices");
    sweep();
    keeper_forget_invalidations(keeper, 1);
    fill(1, (struct filling){.born = 0});
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_MISS);
}

Test(keeper, many_invalidations_that_were_swept_wipe_nothing)
{
    fill(1, (struct filling){.tag = "hours"});
    for (int i = 0; i < INVALIDATIONS_MAX + 50; i++) {
        invalidate("prices");
        if (i % 1000 == 0) {
            sweep();
        }
    }
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_HIT);
    fill(2, (struct filling){.tag = "hours", .born = 1});
    cr_assert_eq(look(2, NULL, INFINITY, NOW).answer, CACHE_ANSWER_MISS,
                 "nobody knows what it missed");
}

static void invalidate_key(uint8_t number)
{
    uint8_t key[CACHE_KEY_BYTES] = {key_of(number)};
    Wire__CacheSelector selector = WIRE__CACHE_SELECTOR__INIT;
    selector.key = (ProtobufCBinaryData){sizeof(key), key};
    keeper_invalidate(keeper, &selector, NOW);
}

Test(keeper, an_entry_that_is_named_is_removed_at_once)
{
    uint64_t entries, bytes;
    fill(1, (struct filling){.tag = "prices"});
    fill(2, (struct filling){.tag = "hours"});
    invalidate_key(1);
    cr_assert_eq(stats().store.entries, 1);
    cr_assert_eq(keeper_swept(keeper), 1);
    keeper_take_removed(keeper, &entries, &bytes);
    cr_assert_eq(entries, 1);
    fill(1, (struct filling){.born = 0});
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_MISS, "it began before");
    invalidate("hours");
    invalidate_key(1);
    cr_assert_eq(keeper_swept(keeper), 1, "another one before it is not swept");
    sweep();
    cr_assert_eq(keeper_swept(keeper), 3);
    cr_assert_eq(stats().store.entries, 0);
}

Test(keeper, what_is_worth_least_goes_when_it_is_full)
{
    keeper_close(&keeper);
    options.entries_max = 40;
    open_keeper();
    for (int i = 0; i < 200; i++) {
        fill((uint8_t)i,
             (struct filling){.cost_nanousd = i < 20 ? 100000000 : 1000, .body_bytes = 100});
    }
    size_t dear = 0;
    for (int i = 0; i < 20; i++) {
        dear += look((uint8_t)i, NULL, INFINITY, NOW).answer == CACHE_ANSWER_HIT;
    }
    cr_assert_leq(stats().store.entries, 40);
    cr_assert_geq(dear, 15, "%zu of 20 dear entries are left: by chance it would be 10", dear);
}

Test(keeper, denied_entry_answers_its_own_text_alone)
{
    const uint8_t key[CACHE_KEY_BYTES] = {key_of(1)};
    fill(1, (struct filling){.text = "Which trains run at night?", .scope = 1});
    cr_assert_eq(keeper_deny_near(keeper, key, error), 0);
    cr_assert_eq(look(2, "which trains run at night", 0, NOW).answer, CACHE_ANSWER_MISS);
    cr_assert_eq(look(1, NULL, INFINITY, NOW).answer, CACHE_ANSWER_HIT);
    keeper_rebuild(keeper, NULL);
    sweep();
    cr_assert_eq(look(2, "which trains run at night", 0, NOW).answer, CACHE_ANSWER_MISS);
}

Test(keeper, one_scope_is_rebuilt_beside_the_others)
{
    const uint8_t scope[CACHE_SCOPE_BYTES] = {1};
    fill(1, (struct filling){.text = "Which trains run at night?", .scope = 1});
    fill(2, (struct filling){.text = "Which trains run at night?", .scope = 2});
    sweep();
    keeper_rebuild(keeper, scope);
    cr_assert_eq(stats().indexed, 2, "all are found meanwhile");
    cr_assert(stats().is_building);
    sweep();
    cr_assert_not(stats().is_building);
    cr_assert_eq(stats().indexed, 2);
    cr_assert_eq(look(3, "which trains run at night", 0, NOW).answer, CACHE_ANSWER_NEAR_HIT);
}

static size_t steps; /* of the last question */

static json_t *ask(const char *what, const json_t *argument)
{
    struct keeper_walk *walk;
    steps = 0;
    json_t *answer = NULL;
    cr_assert_eq(keeper_ask(keeper, what, argument, NOW, &answer, &walk, error), 0, "%s", error);
    while (walk != NULL) {
        cr_assert_eq(keeper_walk_on(keeper, &walk, NOW, &answer, error), 0, "%s", error);
        steps++;
    }
    cr_assert_not_null(answer);
    return answer;
}

static json_int_t hits_of(uint8_t number)
{
    json_t *argument = json_sprintf("%02x%030d", key_of(number), 0);
    argument = json_pack("{s:o}", "key", argument);
    json_t *entry = ask("cache.get", argument);
    const json_int_t hits = json_integer_value(json_object_get(entry, "hits"));
    json_decref(argument);
    json_decref(entry);
    return hits;
}

Test(keeper, hits_are_written_down_a_few_at_a_time)
{
    json_int_t written = 0;
    for (int i = 0; i < 200; i++) {
        fill((uint8_t)i, (struct filling){0});
    }
    for (int i = 0; i < 200; i++) {
        cr_assert_eq(look((uint8_t)i, NULL, INFINITY, NOW).answer, CACHE_ANSWER_HIT);
    }
    cr_assert_gt(keeper_step(keeper, NOW, error), 0, "there is more to do");
    for (int i = 0; i < 200; i++) {
        written += hits_of((uint8_t)i);
    }
    cr_assert(written > 0 && written <= 64, "%lld at once", (long long)written);
    sweep();
    for (int i = 0; i < 200; i++) {
        cr_assert_eq(hits_of((uint8_t)i), 1);
    }
}

Test(keeper, hits_of_one_entry_are_written_down_together_and_at_leisure)
{
    for (int i = 0; i < 100; i++) {
        fill((uint8_t)i, (struct filling){0});
    }
    sweep();
    for (int i = 0; i < 300; i++) {
        cr_assert_eq(look((uint8_t)(i % 100), NULL, INFINITY, NOW).answer, CACHE_ANSWER_HIT);
    }
    for (int i = 0; i < 99; i++) {
        cr_assert_eq(keeper_step(keeper, NOW, error), 1, "nothing of that is urgent");
    }
    cr_assert_eq(keeper_step(keeper, NOW, error), 0);
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(hits_of((uint8_t)i), 3);
    }
}

Test(keeper, what_serves_nobody_is_no_hit)
{
    const struct cache_query query = {
        .key = {key_of(1)}, .threshold = INFINITY, .serves_nobody = true};
    struct cache_result result;
    fill(1, (struct filling){0});
    cr_assert_eq(keeper_lookup(keeper, &query, NOW, &result, error), 0, "%s", error);
    cr_assert_eq(result.answer, CACHE_ANSWER_HIT);
    record__cache_entry__free_unpacked(result.entry, NULL);
    sweep();
    cr_assert_eq(hits_of(1), 0);
}

Test(keeper, questions_about_all_entries_are_answered_by_steps)
{
    for (int i = 0; i < 250; i++) {
        fill((uint8_t)i,
             (struct filling){.tag = i % 2 == 0 ? "even" : "odd", .body_bytes = (size_t)i + 1});
    }
    json_t *argument = json_pack("{s:s, s:i}", "by", "bytes", "limit", 200);
    json_t *top = ask("cache.top", argument);
    const json_t *entries = json_object_get(top, "entries");
    cr_assert_eq(json_array_size(entries), 200);
    for (size_t i = 1; i < 200; i++) {
        cr_assert_geq(json_integer_value(json_object_get(json_array_get(entries, i - 1), "bytes")),
                      json_integer_value(json_object_get(json_array_get(entries, i), "bytes")));
    }
    cr_assert_geq(steps, 250 / 64 + 200 / 64);
    json_decref(argument);
    json_decref(top);
    argument = json_pack("{s:s}", "tag", "even");
    json_t *count = ask("cache.count", argument);
    cr_assert_eq(json_integer_value(json_object_get(count, "entries")), 125);
    cr_assert_geq(steps, 250 / 64);
    json_decref(argument);
    json_decref(count);
}

Test(keeper, wrong_questions_are_refused)
{
    static const char *const wrong[][2] = {{"cache.top", "{\"by\": \"age\"}"},
                                           {"cache.count", "{\"key\": \"12\"}"},
                                           {"cache.count", "{\"older_than_ms\": -1}"},
                                           {"cache.export", "{\"from\": \"x\"}"},
                                           {"cache.melt", "{}"}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct keeper_walk *walk;
        json_t *argument = json_loads(wrong[i][1], 0, NULL);
        error[0] = '\0';
        json_t *answer;
        cr_expect_eq(keeper_ask(keeper, wrong[i][0], argument, NOW, &answer, &walk, error),
                     -EINVAL);
        cr_expect_null(answer);
        cr_expect_null(walk);
        cr_expect_neq(error[0], '\0', "%s", wrong[i][1]);
        json_decref(argument);
    }
}

Test(keeper, explanation_names_the_text_that_cannot_be_compared)
{
    static const char *const wrong[][2] = {{"{\"a\": \"\", \"b\": \"x\"}", "a: "},
                                           {"{\"a\": \"x\", \"b\": \"\"}", "b: "},
                                           {"{\"a\": \"x\"}", "b: "}};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct keeper_walk *walk;
        json_t *answer, *argument = json_loads(wrong[i][0], 0, NULL);
        cr_expect_eq(keeper_ask(keeper, "cache.explain", argument, NOW, &answer, &walk, error),
                     -EINVAL);
        cr_expect_eq(strncmp(error, wrong[i][1], 3), 0, "%s: %s", wrong[i][0], error);
        json_decref(argument);
    }
}

Test(keeper, positions_are_kept)
{
    const uint8_t epoch[CACHE_EPOCH_BYTES] = {7};
    uint8_t found[CACHE_EPOCH_BYTES];
    uint64_t sequence;
    cr_assert_eq(keeper_get_position(keeper, "tcp://a:1", found, &sequence, error), 0);
    cr_assert_eq(sequence, 0);
    cr_assert_eq(keeper_put_position(keeper, "tcp://a:1", epoch, 42, error), 0);
    keeper_close(&keeper);
    open_keeper();
    cr_assert_eq(keeper_get_position(keeper, "tcp://a:1", found, &sequence, error), 0);
    cr_assert_eq(sequence, 42);
    cr_assert_arr_eq(found, epoch, CACHE_EPOCH_BYTES);
}

static json_t *export_page(const char *from, int limit)
{
    json_t *argument = json_pack("{s:s*, s:i}", "from", from, "limit", limit);
    json_t *page = ask("cache.export", argument);
    json_decref(argument);
    return page;
}

static json_t *import(json_t *page)
{
    return ask("cache.import", page);
}

Test(keeper, export_is_taken_by_import)
{
    fill(1, (struct filling){.text = "Which trains run at night?", .scope = 1, .tag = "trains"});
    json_t *page = export_page(NULL, 10);
    cr_assert_eq(json_array_size(json_object_get(page, "entries")), 1);
    keeper_invalidate(keeper, NULL, NOW);
    sweep();
    cr_assert_eq(stats().store.entries, 0);
    json_t *taken = import(page);
    cr_assert_eq(json_integer_value(json_object_get(taken, "taken")), 1);
    cr_assert_eq(look(2, "which trains run at night", 0, NOW).answer, CACHE_ANSWER_NEAR_HIT);
    json_decref(page);
    json_decref(taken);
}

Test(keeper, export_and_import_lose_nothing)
{
    const uint8_t key[CACHE_KEY_BYTES] = {key_of(1)};
    uint8_t scope[CACHE_SCOPE_BYTES] = {1};
    Record__CacheAbout about = RECORD__CACHE_ABOUT__INIT;
    Record__CacheEntry entry = RECORD__CACHE_ENTRY__INIT;
    entry.about = &about;
    entry.provider = "p";
    entry.body = (ProtobufCBinaryData){15, (uint8_t *)"{\"choices\":[0]}"};
    entry.input_tokens = 1;
    entry.cached_input_tokens = 2;
    entry.output_tokens = 3;
    entry.reasoning_tokens = 4;
    about.tenant = "shop";
    about.text = "Which trains run at night?";
    about.scope = (ProtobufCBinaryData){CACHE_SCOPE_BYTES, scope};
    about.filled_unix_ms = (uint64_t)NOW - 1000;
    about.expires_unix_ms = about.stale_until_unix_ms = (uint64_t)NOW + 1000;
    about.cost_nanousd = 12345;
    about.run_ms = 678;
    about.cut_history_tokens = 900;
    about.cut_passages_tokens = 80;
    about.residency = (char *[]){"eu", "ch"};
    about.n_residency = 2;
    cr_assert_eq(keeper_fill(keeper, key, &entry, NULL, false, 0, NOW, error), 0, "%s", error);
    const struct prompt_cut allowed = {.history_tokens = 900, .passages_tokens = 80};
    cr_assert_eq(look_cut(1, NULL, allowed, NOW).answer, CACHE_ANSWER_HIT);
    cr_assert_eq(keeper_deny_near(keeper, key, error), 0);
    keeper_close(&keeper); /* writes the hit */
    open_keeper();
    json_t *page = export_page(NULL, 10);
    keeper_invalidate(keeper, NULL, NOW);
    sweep();
    json_t *taken = import(page);
    json_t *again = export_page(NULL, 10);
    json_t *before = json_array_get(json_object_get(page, "entries"), 0);
    json_t *after = json_array_get(json_object_get(again, "entries"), 0);
    cr_assert_eq(json_integer_value(json_object_get(before, "hits")), 1);
    cr_assert(json_is_true(json_object_get(before, "denied")));
    cr_assert_eq(json_integer_value(json_object_get(before, "reasoning_tokens")), 4);
    cr_assert_eq(json_integer_value(json_object_get(before, "run_ms")), 678);
    const json_t *labels = json_object_get(before, "residency");
    cr_assert_eq(json_array_size(labels), 2);
    cr_assert_str_eq(json_string_value(json_array_get(labels, 1)), "ch");
    /* That of the cache that it is in. */
    (void)json_object_del(before, "served_ms_ago");
    (void)json_object_del(after, "served_ms_ago");
    (void)json_object_del(before, "bytes");
    (void)json_object_del(after, "bytes");
    cr_assert(json_equal(before, after), "%s\n%s", json_dumps(before, 0), json_dumps(after, 0));
    cr_assert_eq(look(2, "which trains run at night", 0, NOW).answer, CACHE_ANSWER_MISS,
                 "it is denied");
    json_decref(page);
    json_decref(taken);
    json_decref(again);
}

Test(keeper, what_cannot_be_is_not_imported)
{
    static const char *const wrong[] = {
        "\"age_ms\": -1",        "\"age_ms\": 9000000000000000000",
        "\"age_ms\": \"1\"",     "\"expires_in_ms\": 9000000000000000000",
        "\"cost_usd\": -0.1",    "\"cost_usd\": 1e300",
        "\"hits\": -1",          "\"run_ms\": 1e300",
        "\"output_tokens\": -5", "\"residency\": \"eu\"",
        "\"residency\": [1]"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char text[512];
        snprintf(text, sizeof(text),
                 "{\"entries\": [{\"key\": \"%032d\", \"tenant\": \"shop\", \"body\": "
                 "\"{\\\"choices\\\":[0]}\", "
                 "\"expires_in_ms\": 1000, %s}]}",
                 0, wrong[i]);
        json_t *page = json_loads(text, 0, NULL);
        cr_assert_not_null(page);
        json_t *taken = import(page);
        cr_expect_eq(json_integer_value(json_object_get(taken, "refused")), 1, "%s", wrong[i]);
        const json_t *refusal = json_array_get(json_object_get(taken, "refusals"), 0);
        const char *why = json_string_value(json_object_get(refusal, "why"));
        const size_t name = strcspn(wrong[i] + 1, "\"");
        cr_expect(why != NULL && strncmp(why, wrong[i] + 1, name) == 0, "%s: %s", wrong[i], why);
        json_decref(page);
        json_decref(taken);
    }
    cr_assert_eq(stats().store.entries, 0);
}

Test(keeper, pages_of_large_entries_hold_fewer)
{
    size_t entries = 0, pages = 0;
    char from[64] = "";
    for (uint8_t i = 0; i < 60; i++) {
        fill(i, (struct filling){.body_bytes = 60000});
    }
    do {
        json_t *page = export_page(from[0] == '\0' ? NULL : from, 50);
        char *text = json_dumps(page, JSON_COMPACT);
        cr_assert_lt(strlen(text), 1 << 20);
        const char *next = json_string_value(json_object_get(page, "next"));
        snprintf(from, sizeof(from), "%s", next == NULL ? "" : next);
        entries += json_array_size(json_object_get(page, "entries"));
        pages++;
        free(text);
        json_decref(page);
    } while (from[0] != '\0');
    cr_assert_eq(entries, 60);
    cr_assert_geq(pages, 4);
}
