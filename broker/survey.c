#include "broker/survey.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "broker/admin.h"
#include "broker/broker.h"
#include "broker/delivery.h"
#include "broker/peers.h"
#include "common/loop.h"

/* Somebody who is asked. */
struct asked {
    uint64_t peer;
    json_t *answer; /* NULL: not yet */
};

struct survey {
    bool is_open;
    uint64_t number; /* of the question, or of the invalidation */
    bool is_applied; /* it waits for an invalidation */
    int64_t until_ms;
    struct http_later *later;
    json_t *object; /* what the answers are put into */
    struct asked *asked;
    size_t asked_length, asked_capacity, missing;
};

struct surveys {
    struct survey slots[SURVEYS_MAX];
    uint64_t number_last;
};

int surveys_create(struct surveys **ret_surveys)
{
    struct surveys *surveys = calloc(1, sizeof(*surveys));
    if (surveys == NULL) {
        return -ENOMEM;
    }
    *ret_surveys = surveys;
    return 0;
}

static void close_survey(struct survey *survey)
{
    for (size_t i = 0; i < survey->asked_length; i++) {
        json_decref(survey->asked[i].answer);
    }
    free(survey->asked);
    json_decref(survey->object);
    *survey = (struct survey){0};
}

void surveys_destroy(struct surveys **surveys)
{
    struct surveys *gone = TAKE(*surveys);
    for (size_t i = 0; gone != NULL && i < SURVEYS_MAX; i++) {
        struct survey *survey = &gone->slots[i];
        if (survey->is_open) {
            struct http_response response = {0};
            http_error(&response, 503, "the broker is shutting down");
            http_later_answer(&survey->later, &response);
            close_survey(survey);
        }
    }
    free(gone);
}

/* ---- asking ---- */

static struct survey *free_slot(struct surveys *surveys)
{
    for (size_t i = 0; i < SURVEYS_MAX; i++) {
        if (!surveys->slots[i].is_open) {
            return &surveys->slots[i];
        }
    }
    return NULL;
}

static void count_worker(void *context, const struct core_worker_view *view)
{
    (void)view;
    ((struct survey *)context)->asked_capacity++;
}

static void add_worker(void *context, const struct core_worker_view *view)
{
    struct survey *survey = context;
    survey->asked[survey->asked_length++].peer = view->peer;
}

static int list_workers(const struct broker *broker, struct survey *survey)
{
    const struct core_time now = broker_time(broker);
    core_visit_workers(broker->core, now, count_worker, survey);
    survey->asked = calloc(survey->asked_capacity + 1, sizeof(struct asked));
    if (survey->asked == NULL) {
        return -ENOMEM;
    }
    core_visit_workers(broker->core, now, add_worker, survey);
    survey->missing = survey->asked_length;
    return 0;
}

/* Everybody has answered; what was invalidated is on the disk, besides. */
static bool is_complete(const struct broker *broker, const struct survey *survey)
{
    uint8_t epoch[CACHE_EPOCH_BYTES];
    uint64_t latest, told;
    core_cache_position(broker->core, epoch, &latest, &told);
    return survey->missing == 0 && (!survey->is_applied || told >= survey->number);
}

static void end(struct broker *broker, struct survey *survey)
{
    json_t *workers = json_array();
    for (size_t i = 0; i < survey->asked_length; i++) {
        const struct peer *peer = peers_by_number(broker->peers, survey->asked[i].peer);
        json_t *answer = survey->asked[i].answer != NULL
                             ? TAKE(survey->asked[i].answer)
                             : json_pack("{s:s}", "error", "it has not answered in time");
        if (json_object_get(answer, "worker") == NULL) {
            json_object_set_new(answer, "worker", json_string(peer == NULL ? "" : peer->name));
        }
        json_array_append_new(workers, answer);
    }
    json_object_set_new(survey->object, "complete", json_boolean(is_complete(broker, survey)));
    json_object_set_new(survey->object, "workers", workers);
    struct http_response response = {0};
    admin_answer(&response, 200, TAKE(survey->object));
    http_later_answer(&survey->later, &response);
    close_survey(survey);
}

/* Takes: `object`. NULL, answered: too many, or no memory. */
static struct survey *open_survey(struct broker *broker, const struct http_request *request,
                                  struct http_response *response, json_t *object)
{
    struct survey *survey = free_slot(broker->surveys);
    if (survey == NULL || object == NULL || list_workers(broker, survey) < 0 ||
        http_later(broker->admin, request, &survey->later) < 0) {
        http_error(response, 503, "too much is asked for at once; try again later");
        json_decref(object);
        if (survey != NULL) {
            close_survey(survey);
        }
        return NULL;
    }
    survey->is_open = true;
    survey->object = object;
    survey->until_ms = broker_time(broker).now_ms + SURVEY_MS;
    return survey;
}

void survey_ask(struct broker *broker, const struct http_request *request,
                struct http_response *response, const char *what, json_t *argument)
{
    char *text = argument == NULL ? NULL : json_dumps(argument, JSON_COMPACT);
    json_decref(argument);
    struct survey *survey =
        open_survey(broker, request, response, text == NULL ? NULL : json_object());
    if (survey != NULL) {
        survey->number = ++broker->surveys->number_last;
        for (size_t i = 0; i < survey->asked_length; i++) {
            delivery_query(broker, survey->asked[i].peer, survey->number, what, text);
        }
        loop_again(broker->loop);
    }
    free(text);
}

struct survey *survey_promise(struct broker *broker, const struct http_request *request,
                              struct http_response *response)
{
    struct survey *survey = open_survey(broker, request, response, json_object());
    if (survey != NULL) {
        survey->is_applied = true;
    }
    return survey;
}

void survey_await_applied(struct broker *broker, struct survey *survey, uint64_t sequence)
{
    survey->number = sequence;
    (void)json_object_set_new(survey->object, "sequence", json_integer((json_int_t)sequence));
    loop_again(broker->loop);
}

void survey_fail(struct survey *survey, int status, const char *why)
{
    struct http_response response = {0};
    http_error(&response, status, "%s", why);
    http_later_answer(&survey->later, &response);
    close_survey(survey);
}

/* ---- answers ---- */

/* Takes: `answer`. */
static void take(struct survey *survey, const struct peer *peer, json_t *answer)
{
    for (size_t i = 0; i < survey->asked_length; i++) {
        struct asked *asked = &survey->asked[i];
        if (asked->peer == peer->number && asked->answer == NULL) {
            json_object_set_new(answer, "worker", json_string(peer->name));
            asked->answer = TAKE(answer);
            survey->missing--;
        }
    }
    json_decref(answer);
}

static struct survey *find(struct surveys *surveys, uint64_t number, bool is_applied)
{
    for (size_t i = 0; i < SURVEYS_MAX; i++) {
        struct survey *survey = &surveys->slots[i];
        if (survey->is_open && survey->number == number && survey->is_applied == is_applied) {
            return survey;
        }
    }
    return NULL;
}

void surveys_take_answer(struct broker *broker, const struct peer *peer,
                         const Wire__WorkerAnswer *answer)
{
    struct survey *survey = find(broker->surveys, answer->number, false);
    if (survey == NULL) {
        return; /* it came too late */
    }
    json_t *value = json_loads(answer->text, JSON_DECODE_ANY, NULL);
    json_t *object =
        answer->error[0] != '\0' || value == NULL
            ? json_pack("{s:s}", "error",
                        answer->error[0] != '\0' ? answer->error : "its answer is no JSON")
            : json_pack("{s:O}", "answer", value);
    json_decref(value);
    take(survey, peer, object);
}

void surveys_take_applied(struct broker *broker, const struct peer *peer,
                          const Wire__CacheApplied *applied)
{
    for (size_t i = 0; i < SURVEYS_MAX; i++) {
        struct survey *survey = &broker->surveys->slots[i];
        if (survey->is_open && survey->is_applied && survey->number == applied->sequence) {
            take(survey, peer,
                 json_pack("{s:{s:I, s:I}}", "answer", "entries", (json_int_t)applied->entries,
                           "bytes", (json_int_t)applied->bytes));
        }
    }
}

void surveys_worker_gone(struct broker *broker, const struct peer *peer)
{
    for (size_t i = 0; i < SURVEYS_MAX; i++) {
        struct survey *survey = &broker->surveys->slots[i];
        if (survey->is_open) {
            take(survey, peer, json_pack("{s:s}", "error", "it left"));
        }
    }
}

int64_t surveys_tick(struct broker *broker, int64_t now_ms)
{
    int64_t next_ms = INT64_MAX;
    for (size_t i = 0; i < SURVEYS_MAX; i++) {
        struct survey *survey = &broker->surveys->slots[i];
        if (survey->is_open && (is_complete(broker, survey) || now_ms >= survey->until_ms)) {
            end(broker, survey);
        } else if (survey->is_open && survey->until_ms < next_ms) {
            next_ms = survey->until_ms;
        }
    }
    return next_ms;
}
