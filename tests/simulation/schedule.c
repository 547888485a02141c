#include "tests/simulation/schedule.h"
#include <stddef.h>
#include <stdlib.h>
#include "tests/simulation/memory.h"

/* A key is the time, then the order of planning; that wraps after a million tasks, within one
 * millisecond at worst. */
enum { SEQUENCE_BITS = 20 };

void schedule_init(struct schedule *schedule)
{
    heap_init(&schedule->heap, offsetof(struct task, position));
    schedule->sequence = 0;
    schedule->spare = NULL;
}

static struct task *take_spare(struct schedule *schedule)
{
    struct task *task = schedule->spare;
    if (task == NULL) {
        return must(calloc(1, sizeof(*task)));
    }
    schedule->spare = task->next;
    return task;
}

void schedule_finish(struct schedule *schedule)
{
    struct task *task;
    while ((task = heap_pop(&schedule->heap)) != NULL) {
        schedule_release(schedule, &task);
    }
    while ((task = schedule->spare) != NULL) {
        schedule->spare = task->next;
        free(task);
    }
    heap_finish(&schedule->heap);
}

void schedule_add(struct schedule *schedule, int64_t at_ms, enum task_kind kind, uint32_t who,
                  uint64_t generation, const struct message *message)
{
    struct task *task = take_spare(schedule);
    *task =
        (struct task){.position = HEAP_NONE, .kind = kind, .who = who, .generation = generation};
    if (message != NULL) {
        task->message = *message;
    }
    const uint64_t order = schedule->sequence++ & ((UINT64_C(1) << SEQUENCE_BITS) - 1);
    if (heap_push(&schedule->heap, task, (uint64_t)at_ms << SEQUENCE_BITS | order) < 0) {
        (void)must(NULL);
    }
}

int64_t schedule_next_ms(const struct schedule *schedule)
{
    return schedule->heap.length == 0 ? INT64_MAX
                                      : (int64_t)(heap_peek_key(&schedule->heap) >> SEQUENCE_BITS);
}

struct task *schedule_take(struct schedule *schedule, int64_t *ret_at_ms)
{
    *ret_at_ms = schedule_next_ms(schedule);
    return heap_pop(&schedule->heap);
}

void schedule_release(struct schedule *schedule, struct task **task)
{
    if (*task != NULL) {
        message_finish(&(*task)->message);
        (*task)->next = schedule->spare;
        schedule->spare = *task;
        *task = NULL;
    }
}
