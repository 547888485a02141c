/*
 * Messages to a client from whoever it takes for its broker: the library lives on, what it says is
 * well formed (links.h), and each job has one answer at most.
 *
 * The input is a list of messages (links.h), each behind a byte of flags: whether it is a chunk,
 * whether the right header is put in front, whether the library can send, whether its turn ends. The
 * client has submitted two jobs and asked for a third, under ids that a corpus can name, and waits for
 * an invalidation (number 1).
 */
#include "client/tiermq.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/links.h"

enum {
    FLAG_CHUNK = 1,
    FLAG_HEADER = 8,
    FLAG_FULL = 32,
    FLAG_TURN = 64,
    JOBS = 3,
};

/* UUIDs of version 7 that differ in the last byte. */
static tiermq_id id_of(uint8_t number)
{
    tiermq_id id = {.bytes = {1, 0x93, 0x6e, 0x2a, 0x7b, 0x1c, 0x7d, 0xef, 0x8a, 0x90, 0x12, 0x34,
                              0x56, 0x78, 0x9a, number}};
    return id;
}

static void answered(void *context, const struct tiermq_answer *answer)
{
    unsigned *answers = context;
    must_hold(answer->error_code != NULL && answer->error_text != NULL && answer->text != NULL);
    must_hold(answer->model != NULL && answer->provider != NULL && answer->worker != NULL);
    must_hold((answer->body == NULL) == (answer->body_bytes == 0));
    const uint8_t number = answer->id.bytes[15];
    must_hold(number < JOBS && ++answers[number] == 1);
}

static void chunk_arrived(void *context, const tiermq_id *id, const void *data, size_t bytes,
                          bool last)
{
    (void)context, (void)last;
    char *text = NULL;
    must_hold(id->bytes[15] < JOBS);
    if (tiermq_chunk_text(data, bytes, &text) == 0) {
        free(text);
    }
}

static void begin_jobs(struct tiermq *client, unsigned *answers)
{
    const struct tiermq_callbacks callbacks = {
        .on_chunk = chunk_arrived, .on_answer = answered, .context = answers};
    const struct tiermq_job jobs[] = {
        {.id = id_of(0), .prompt = "hello", .stream = true},
        {.id = id_of(1), .prompt = "hello", .tier = "realtime", .idempotency_key = "key"},
    };
    for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++) {
        must_hold(tiermq_submit_async(client, &jobs[i], &callbacks, NULL) == 0);
    }
    const tiermq_id earlier = id_of(2);
    must_hold(tiermq_wait_async(client, &earlier, &callbacks) == 0);
}

static void take_word(void *context, int result, const char *error)
{
    unsigned *times = context;
    must_hold(++*times == 1 && (result == 0) == (error[0] == '\0'));
}

static void say_about_answers(struct tiermq *client, unsigned *times)
{
    const struct tiermq_selector selector = {.tag = "prices"};
    const tiermq_id id = {{1}};
    const struct tiermq_feedback feedback = {.comment = "fuzz",
                                             .near_key = "000102030405060708090a0b0c0d0e0f",
                                             .embedder = "builtin/1"};
    must_hold(tiermq_invalidate_async(client, &selector, "fuzz", take_word, &times[0]) == 0);
    must_hold(tiermq_give_feedback_async(client, &id, &feedback, take_word, &times[1]) == 0);
}

static void receive_one(struct tiermq *client, struct input *input)
{
    const uint8_t flags = input_byte(input);
    struct link_message message;
    links_set_full((flags & FLAG_FULL) != 0);
    links_take_message(input, (flags & FLAG_CHUNK) != 0 ? FRAME_CHUNK : FRAME_BROKER_TO_CLIENT,
                       (flags & FLAG_HEADER) != 0, &message);
    links_deliver(LINK_DEALER, &message);
    links_message_finish(&message);
    if ((flags & FLAG_TURN) != 0) {
        must_hold(tiermq_dispatch(client, 0) >= 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const struct tiermq_options options = {.brokers = "tcp://127.0.0.1:7700", .name = "fuzz"};
    struct tiermq *client = NULL;
    unsigned answers[JOBS] = {0}, times[2] = {0};
    must_hold(tiermq_connect(&options, &client) == 0);
    begin_jobs(client, answers);
    say_about_answers(client, times);
    struct input input = {.data = data, .bytes = bytes};
    while (input.bytes > 0) {
        receive_one(client, &input);
    }
    links_set_full(false);
    must_hold(tiermq_dispatch(client, 0) >= 0);
    must_hold(tiermq_last_error(client) != NULL && tiermq_connection_error(client) != NULL);
    tiermq_close(&client);
    return 0;
}
