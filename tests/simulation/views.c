#include "tests/simulation/views.h"
#include <inttypes.h>
#include <string.h>
#include "broker/core/core.h"
#include "broker/core/record.h"
#include "tests/simulation/broker.h"

enum { PAGE = 50 /* letters */ };

struct pages {
    struct simulation *simulation;
    const struct dead_filter *filter;
    uint64_t letters, number; /* visited, and of the last one */
};

static const char *stranger = "nobody";

static void look_at_letter(void *context, const struct core_dead_view *view)
{
    struct pages *pages = context;
    struct simulation *simulation = pages->simulation;
    const uint32_t index = simulation_job_of(simulation, &view->id);
    pages->letters++;
    if (index == NO_JOB || view->number <= pages->number) {
        simulation_violate(simulation, "dead letter %" PRIu64 " is shown after %" PRIu64,
                           view->number, pages->number);
        return;
    }
    pages->number = view->number;
    const struct scenario *scenario = &simulation->scenario;
    const struct sim_job *job = &simulation->jobs[index];
    if (strcmp(view->tenant, scenario->tenants[job->tenant].name) != 0 ||
        strcmp(view->tier, scenario->tiers[job->tier].name) != 0 ||
        strcmp(view->route, scenario->routes[job->route]) != 0 ||
        view->payload_bytes != job->payload_bytes || view->is_durable != job->is_durable ||
        (view->is_lost && (view->is_durable || view->why_not[0] == '\0'))) {
        simulation_violate(simulation, "the dead letter of job %u is shown as it is not", index);
    }
    if (pages->filter->tier != NULL && strcmp(view->tier, pages->filter->tier) != 0) {
        simulation_violate(simulation, "the dead letter of job %u does not fit, and is shown",
                           index);
    }
}

/* By pages, as operators read them. */
static uint64_t visit(struct simulation *simulation, const struct dead_filter *filter)
{
    struct pages pages = {.simulation = simulation, .filter = filter};
    uint64_t cursor = 0;
    do {
        cursor =
            core_visit_dead(simulation->broker.core, filter, cursor, PAGE, look_at_letter, &pages);
    } while (cursor != 0);
    return pages.letters;
}

void views_check_dead(struct simulation *simulation)
{
    struct core_stats stats;
    uint64_t letters = 0;
    core_read_stats(simulation->broker.core, sim_broker_now(simulation), &stats);
    for (int i = 0; i < SCENARIO_TIERS; i++) {
        const struct dead_filter filter = {.tier = simulation->scenario.tiers[i].name};
        letters += visit(simulation, &filter);
    }
    const struct dead_filter all = {0}, none = {.worker = stranger};
    if (visit(simulation, &all) != stats.dead_letters || letters != stats.dead_letters ||
        visit(simulation, &none) != 0) {
        simulation_violate(simulation,
                           "%" PRIu64 " of %" PRIu64 " dead letters are shown, by their tiers",
                           letters, stats.dead_letters);
    }
}

/* ---- attempts ---- */

/* An attempt that is on disk is there under its key, and one in memory may have been forgotten. */
static void check_entry(struct simulation *simulation, uint32_t index,
                        const struct core_history_view *view, uint32_t position)
{
    const struct core_history_entry *entry = &view->entries[position];
    const void *packed = entry->packed;
    size_t bytes = entry->packed_bytes;
    if (view->is_on_disk) {
        const struct blob *stored = storage_find(simulation->broker.storage, STORAGE_CURRENT,
                                                 STORE_ATTEMPTS, entry->key, sizeof(entry->key));
        packed = stored == NULL ? "" : blob_data(stored);
        bytes = stored == NULL ? 0 : blob_bytes(stored);
    }
    Record__AttemptRecord *record;
    if (packed == NULL) {
        return;
    }
    if (record_read_attempt(packed, bytes, NULL, &record) < 0) {
        simulation_violate(simulation, "entry %u of the history of job %u cannot be read", position,
                           index);
        return;
    }
    record__attempt_record__free_unpacked(record, NULL);
}

static void check_history(struct simulation *simulation, uint32_t index)
{
    struct core_history_view view;
    if (core_view_history(simulation->broker.core, &simulation->jobs[index].id, &view) < 0) {
        return;
    }
    for (uint32_t i = 0; i < view.kept; i++) {
        check_entry(simulation, index, &view, i);
    }
    if (view.kept < CORE_HISTORY_MAX && view.omitted > 0) {
        simulation_violate(simulation, "%u attempts of job %u are left out beside %u", view.omitted,
                           index, view.kept);
    }
}

void views_check_job(struct simulation *simulation, uint32_t index)
{
    const struct core *core = simulation->broker.core;
    const struct id *id = &simulation->jobs[index].id;
    struct core_dead_view view;
    Wire__JobState state;
    const char *worker;
    const bool is_dead =
        core_find_job(core, id, &state, &worker) == 0 && state == WIRE__JOB_STATE__JOB_STATE_DEAD;
    if ((core_view_dead(core, id, &view) == 0) != is_dead) {
        simulation_violate(simulation, "job %u is %s dead letter", index, is_dead ? "a" : "no");
    }
    check_history(simulation, index);
}
