/*
 * journal: a store on a disk, with the blocking calls on two threads.
 *
 * The journal thread writes all that is pending with one fsync while the next group gathers: the
 * slower the disk, the larger the groups. The loading thread reads beside it. Both answer through
 * the lists below, under one lock that is held for a few instructions only, and wake the loop once
 * until it has looked.
 *
 * A write that fails leaves RocksDB read-only until it is opened again, and unknown parts of the
 * group on the disk. Changes are absolute (a key has this value, a key is gone), so the group is
 * written once more as it was, and what followed it afterwards: nothing is lost, twice, or out of
 * order.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "broker/store/disk.h"
#include "broker/store/engine.h"
#include "common/blob.h"
#include "common/clock.h"
#include "common/loop.h"

enum {
    COMPANY_WAIT_MS = 100,      /* how long a batch that nobody waits for waits for others */
    GROUP_BYTES_MAX = 16 << 20, /* bounds the memory and the time of one write */
    RETRY_FIRST_MS = 100,
    RETRY_MAX_MS = 5000,
    LOOK_EVERY_MS = 1000,
    RESTS_MAX = 30, /* looks after the last write: merging may take that long */
    FAULT_EVERY_MS = 1000,
};

/*
 * What the loop has not heard yet. Several of a kind become one; the order of delivery is that of
 * the fields.
 */
struct news {
    uint64_t durable_before; /* 0: none */
    bool is_down_due;
    uint64_t down_first_batch;
    char down_why[STORE_WHY_BYTES];
    uint64_t durable;
    bool is_up_due;
    bool is_fault_due;
    char fault_why[STORE_WHY_BYTES];
};

struct load_list {
    struct disk_load *first, *last;
    size_t length;
};

struct journal {
    struct store store;
    struct disk *disk;
    pthread_t writer, loader;
    bool has_writer, has_loader;

    pthread_mutex_t lock; /* for all below */
    pthread_cond_t write_work, load_work;
    struct batch_list pending; /* handed over, not taken by the writer */
    struct batch_list written; /* on their way back to the pool */
    bool is_urgent;            /* somebody waits for one of `pending` */
    int64_t write_at_ms;       /* when `pending` is written though nobody waits */
    uint64_t last_handed, last_durable;
    struct load_list asked, answered;
    size_t loads_outstanding; /* asked for, and not delivered */
    bool is_loading;          /* the loader is in the disk */
    bool is_disk_open;
    bool is_down; /* from a failed write until all that was pending is durable */
    bool is_closing;
    bool is_woken; /* the loop was woken and has not looked */
    struct news news;
    char why_down[STORE_WHY_BYTES]; /* as last reported */
    int64_t fault_at_ms;            /* when the next fault may be */
    int64_t look_at_ms;             /* when the writer looks after the disk next */
    int rests_left;                 /* how often it does so before the next write */
    struct store_stats stats;
    uint64_t batches_in_group; /* being written */
};

static void load_list_append(struct load_list *list, struct disk_load *load)
{
    load->next = NULL;
    if (list->last == NULL) {
        list->first = load;
    } else {
        list->last->next = load;
    }
    list->last = load;
    list->length++;
}

static struct disk_load *load_list_pop(struct load_list *list)
{
    struct disk_load *load = list->first;
    if (load != NULL) {
        list->first = load->next;
        list->last = list->first == NULL ? NULL : list->last;
        list->length--;
    }
    return load;
}

static void load_list_free(struct load_list *list)
{
    struct disk_load *load;
    while ((load = load_list_pop(list)) != NULL) {
        blob_unref(&load->value);
        free(load);
    }
}

/* Waits on `condition` until the monotonic time `at_ms` at the latest. */
static void wait_until(struct journal *journal, pthread_cond_t *condition, int64_t at_ms)
{
    struct timespec at = {.tv_sec = at_ms / 1000, .tv_nsec = at_ms % 1000 * 1000000};
    pthread_cond_timedwait(condition, &journal->lock, &at);
}

static void wake_loop(struct journal *journal)
{
    if (!journal->is_woken) {
        journal->is_woken = true;
        loop_wake(journal->store.loop);
    }
}

/* --------------------------------------------------------------------------- the journal thread */

/*
 * Figures for operators, and space that can be given back; not with every commit, because it costs
 * more than one. Lock held; released meanwhile.
 */
static void writer_look_after(struct journal *journal)
{
    int64_t now_ms = clock_monotonic_ms();
    if (now_ms < journal->look_at_ms) {
        return;
    }
    journal->look_at_ms = now_ms + LOOK_EVERY_MS;
    struct store_stats measured = {0};
    pthread_mutex_unlock(&journal->lock);
    disk_tidy(journal->disk);
    disk_measure(journal->disk, &measured);
    pthread_mutex_lock(&journal->lock);
    journal->stats.disk_bytes = measured.disk_bytes;
    journal->stats.memory_bytes = measured.memory_bytes;
}

/*
 * Nothing is pending: waits for more, and looks after the disk meanwhile, until some time after the
 * last write. Lock held; released meanwhile.
 */
static void writer_rest(struct journal *journal)
{
    if (journal->rests_left == 0) {
        pthread_cond_wait(&journal->write_work, &journal->lock);
        return;
    }
    if (clock_monotonic_ms() < journal->look_at_ms) {
        wait_until(journal, &journal->write_work, journal->look_at_ms);
        return;
    }
    journal->rests_left--;
    writer_look_after(journal);
}

/* Waits until a group is due. False: closing, and nothing is left that can be written. */
static bool writer_wait(struct journal *journal)
{
    for (;;) {
        if (journal->pending.first == NULL) {
            if (journal->is_closing) {
                return false;
            }
            writer_rest(journal);
            continue;
        }
        if (journal->is_urgent || journal->is_closing ||
            clock_monotonic_ms() >= journal->write_at_ms) {
            return true;
        }
        wait_until(journal, &journal->write_work, journal->write_at_ms);
    }
}

static void take_group(struct journal *journal, struct batch_list *group)
{
    if (journal->pending.value_bytes <= GROUP_BYTES_MAX) {
        batch_list_move(group, &journal->pending);
        journal->is_urgent = false;
    }
    while (journal->pending.first != NULL &&
           (group->length == 0 ||
            group->value_bytes + journal->pending.first->value_bytes <= GROUP_BYTES_MAX)) {
        batch_list_append(group, batch_list_pop(&journal->pending));
    }
    journal->batches_in_group = group->length;
}

static void report_durable(struct journal *journal, uint64_t batch)
{
    struct news *news = &journal->news;
    journal->last_durable = batch;
    if (journal->is_down) {
        news->durable = batch;
    } else {
        *(news->is_down_due || news->is_up_due ? &news->durable : &news->durable_before) = batch;
    }
    if (journal->is_down && journal->pending.first == NULL) {
        journal->is_down = false;
        news->is_up_due = true;
    }
    wake_loop(journal);
}

/* Lock held. */
static void report_fault(struct journal *journal, const char *why)
{
    const int64_t now_ms = clock_monotonic_ms();
    if (now_ms < journal->fault_at_ms) {
        return;
    }
    journal->fault_at_ms = now_ms + FAULT_EVERY_MS;
    journal->news.is_fault_due = true;
    snprintf(journal->news.fault_why, sizeof(journal->news.fault_why), "%s", why);
    wake_loop(journal);
}

/* What keeps it down may change while it is: room is made, and then there is damage. Lock held. */
static void report_still_down(struct journal *journal, const char *why)
{
    if (strcmp(journal->why_down, why) != 0) {
        snprintf(journal->why_down, sizeof(journal->why_down), "%s", why);
        report_fault(journal, why);
    }
}

static void report_down(struct journal *journal, uint64_t first_batch, const char *why)
{
    struct news *news = &journal->news;
    journal->stats.failures++;
    if (journal->is_down) {
        report_still_down(journal, why);
        return;
    }
    snprintf(journal->why_down, sizeof(journal->why_down), "%s", why);
    journal->is_down = true;
    if (news->is_up_due) {
        /* The loop did not see it up: to the loop it is down all the time. */
        news->is_up_due = false;
        return;
    }
    news->is_down_due = true;
    news->down_first_batch = first_batch;
    snprintf(news->down_why, sizeof(news->down_why), "%s", why);
    wake_loop(journal);
}

static void count_group(struct journal *journal, const struct batch_list *group, int64_t took_ns)
{
    struct store_stats *stats = &journal->stats;
    stats->commits++;
    stats->records += group->changes;
    stats->bytes += group->value_bytes;
    stats->commit_us_last = (uint64_t)(took_ns / 1000);
    stats->commit_us_total += stats->commit_us_last;
}

/*
 * Waits out the backoff, which only closing cuts short, then opens the disk again. Lock held;
 * released meanwhile.
 */
static int writer_reopen(struct journal *journal, int64_t backoff_ms, char *ret_why)
{
    int64_t at_ms = clock_monotonic_ms() + backoff_ms;
    while (!journal->is_closing && clock_monotonic_ms() < at_ms) {
        wait_until(journal, &journal->write_work, at_ms);
    }
    if (journal->is_closing) {
        return -ECANCELED;
    }
    journal->is_disk_open = false;
    while (journal->is_loading) {
        pthread_cond_wait(&journal->write_work, &journal->lock);
    }
    pthread_mutex_unlock(&journal->lock);
    int r = disk_reopen(journal->disk, ret_why);
    pthread_mutex_lock(&journal->lock);
    journal->is_disk_open = r == 0;
    /* What is there can be read, even if nothing can be written. */
    pthread_cond_signal(&journal->load_work);
    return r;
}

/*
 * Writes the group, however long it takes. Lock held; released meanwhile. Errors: -ECANCELED
 * closing.
 */
static int write_group(struct journal *journal, const struct batch_list *group)
{
    for (int64_t backoff_ms = RETRY_FIRST_MS;;
         backoff_ms = backoff_ms * 2 < RETRY_MAX_MS ? backoff_ms * 2 : RETRY_MAX_MS) {
        char why[STORE_WHY_BYTES] = "";
        int r = 0;
        if (journal->is_disk_open) {
            pthread_mutex_unlock(&journal->lock);
            int64_t began_ns = clock_monotonic_ns();
            r = disk_write(journal->disk, group, why);
            int64_t took_ns = clock_monotonic_ns() - began_ns;
            pthread_mutex_lock(&journal->lock);
            if (r == 0) {
                count_group(journal, group, took_ns);
                return 0;
            }
            report_down(journal, group->first->number, why);
        }
        r = writer_reopen(journal, backoff_ms, why);
        if (r == -ECANCELED) {
            return r;
        }
        if (r < 0) {
            journal->stats.failures++;
            report_still_down(journal, why);
        }
    }
}

static void *writer_run(void *context)
{
    struct journal *journal = context;
    struct batch_list group = {0};
    pthread_mutex_lock(&journal->lock);
    while (writer_wait(journal)) {
        take_group(journal, &group);
        int r = write_group(journal, &group);
        uint64_t last = group.last->number;
        batch_list_move(&journal->written, &group);
        journal->batches_in_group = 0;
        if (r < 0) {
            break;
        }
        report_durable(journal, last);
        if (journal->asked.first != NULL) {
            pthread_cond_signal(&journal->load_work);
        }
        writer_look_after(journal);
        journal->rests_left = RESTS_MAX;
    }
    pthread_mutex_unlock(&journal->lock);
    return NULL;
}

/* --------------------------------------------------------------------------- the loading thread */

static bool load_is_due(const struct journal *journal)
{
    return journal->asked.first != NULL && journal->is_disk_open &&
           journal->asked.first->after <= journal->last_durable;
}

static void take_loads(struct journal *journal, struct load_list *loads)
{
    while (loads->length < DISK_LOADS_MAX && load_is_due(journal)) {
        load_list_append(loads, load_list_pop(&journal->asked));
    }
}

static void *loader_run(void *context)
{
    struct journal *journal = context;
    pthread_mutex_lock(&journal->lock);
    while (!journal->is_closing) {
        struct load_list loads = {0};
        take_loads(journal, &loads);
        if (loads.length == 0) {
            pthread_cond_wait(&journal->load_work, &journal->lock);
            continue;
        }
        journal->is_loading = true;
        pthread_mutex_unlock(&journal->lock);
        char why[STORE_WHY_BYTES] = "";
        disk_load(journal->disk, loads.first, why);
        pthread_mutex_lock(&journal->lock);
        if (why[0] != '\0') {
            report_fault(journal, why);
        }
        journal->is_loading = false;
        if (!journal->is_disk_open) {
            pthread_cond_signal(&journal->write_work); /* the writer waits to reopen */
        }
        struct disk_load *load;
        while ((load = load_list_pop(&loads)) != NULL) {
            journal->stats.read_failures += load->result < 0 && load->result != -ENOENT;
            load_list_append(&journal->answered, load);
        }
        wake_loop(journal);
    }
    pthread_mutex_unlock(&journal->lock);
    return NULL;
}

/* ------------------------------------------------------------------------------ the loop's side */

static int journal_scan(struct store *store, enum store_family family, store_visit_fn *visit,
                        void *context, char *ret_why)
{
    struct journal *journal = (struct journal *)store;
    assert(journal->last_handed == 0);
    return disk_scan(journal->disk, family, visit, context, ret_why);
}

static void journal_commit(struct store *store, struct store_batch **batch, bool urgent)
{
    struct journal *journal = (struct journal *)store;
    pthread_mutex_lock(&journal->lock);
    if (journal->pending.first == NULL) {
        journal->write_at_ms = clock_monotonic_ms() + COMPANY_WAIT_MS;
    }
    bool is_news = journal->pending.first == NULL || (urgent && !journal->is_urgent);
    journal->is_urgent |= urgent;
    journal->last_handed = (*batch)->number;
    batch_list_append(&journal->pending, TAKE(*batch));
    pthread_mutex_unlock(&journal->lock);
    if (is_news) {
        pthread_cond_signal(&journal->write_work);
    }
}

static int journal_load(struct store *store, enum store_family family, const void *key,
                        size_t key_bytes, uint64_t token)
{
    struct journal *journal = (struct journal *)store;
    struct disk_load *load = malloc(sizeof(*load));
    if (load == NULL) {
        return -ENOMEM;
    }
    *load = (struct disk_load){
        .token = token, .family = (uint8_t)family, .key_bytes = (uint8_t)key_bytes};
    memcpy(load->key, key, key_bytes);

    pthread_mutex_lock(&journal->lock);
    if (journal->loads_outstanding == STORE_LOADS_MAX) {
        pthread_mutex_unlock(&journal->lock);
        free(load);
        return -ENOBUFS;
    }
    load->after = journal->last_handed;
    load_list_append(&journal->asked, load);
    journal->loads_outstanding++;
    bool is_hurried = journal->pending.first != NULL && !journal->is_urgent;
    journal->is_urgent |= is_hurried;
    bool is_due = load_is_due(journal);
    pthread_mutex_unlock(&journal->lock);
    if (is_hurried) {
        pthread_cond_signal(&journal->write_work);
    }
    if (is_due) {
        pthread_cond_signal(&journal->load_work);
    }
    return 0;
}

static void give_back(struct journal *journal, struct batch_list *list)
{
    struct store_batch *batch;
    while ((batch = batch_list_pop(list)) != NULL) {
        batch_pool_give(&journal->store.pool, &batch);
    }
}

static void deliver_news(struct journal *journal, const struct news *news)
{
    const struct store_callbacks *callbacks = &journal->store.callbacks;
    if (news->durable_before > 0) {
        callbacks->on_durable(callbacks->context, news->durable_before);
    }
    if (news->is_down_due) {
        callbacks->on_down(callbacks->context, news->down_first_batch, news->down_why);
    }
    if (news->durable > 0) {
        callbacks->on_durable(callbacks->context, news->durable);
    }
    if (news->is_up_due) {
        callbacks->on_up(callbacks->context);
    }
    if (news->is_fault_due) {
        callbacks->on_fault(callbacks->context, news->fault_why);
    }
}

static void deliver_loads(struct journal *journal, struct load_list *loads)
{
    const struct store_callbacks *callbacks = &journal->store.callbacks;
    struct disk_load *load;
    while ((load = load_list_pop(loads)) != NULL) {
        callbacks->on_loaded(callbacks->context, load->token, load->result, load->value);
        blob_unref(&load->value);
        free(load);
    }
}

static void journal_poll(struct store *store)
{
    struct journal *journal = (struct journal *)store;
    pthread_mutex_lock(&journal->lock);
    if (!journal->is_woken) {
        pthread_mutex_unlock(&journal->lock);
        return;
    }
    journal->is_woken = false;
    struct news news = journal->news;
    journal->news = (struct news){0};
    struct load_list answered = journal->answered;
    journal->answered = (struct load_list){0};
    journal->loads_outstanding -= answered.length;
    struct batch_list written = journal->written;
    journal->written = (struct batch_list){0};
    pthread_mutex_unlock(&journal->lock);

    give_back(journal, &written);
    deliver_news(journal, &news);
    deliver_loads(journal, &answered);
}

static void journal_read_stats(struct store *store, struct store_stats *ret_stats)
{
    struct journal *journal = (struct journal *)store;
    pthread_mutex_lock(&journal->lock);
    *ret_stats = journal->stats;
    ret_stats->pending_batches = journal->pending.length + journal->batches_in_group;
    ret_stats->pending_loads = journal->loads_outstanding;
    pthread_mutex_unlock(&journal->lock);
}

static void join_threads(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
    journal->is_closing = true;
    pthread_cond_broadcast(&journal->write_work);
    pthread_cond_broadcast(&journal->load_work);
    pthread_mutex_unlock(&journal->lock);
    if (journal->has_writer) {
        pthread_join(journal->writer, NULL);
    }
    if (journal->has_loader) {
        pthread_join(journal->loader, NULL);
    }
}

static void journal_close(struct store *store)
{
    struct journal *journal = (struct journal *)store;
    join_threads(journal);
    give_back(journal, &journal->pending);
    give_back(journal, &journal->written);
    batch_pool_finish(&store->pool);
    load_list_free(&journal->asked);
    load_list_free(&journal->answered);
    pthread_cond_destroy(&journal->load_work);
    pthread_cond_destroy(&journal->write_work);
    pthread_mutex_destroy(&journal->lock);
    disk_close(&journal->disk);
    free(journal);
}

static const struct store_engine journal_engine = {
    .scan = journal_scan,
    .commit = journal_commit,
    .load = journal_load,
    .poll = journal_poll,
    .read_stats = journal_read_stats,
    .close = journal_close,
};

static void init_locks(struct journal *journal)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&journal->lock, NULL);
    pthread_cond_init(&journal->write_work, &attributes);
    pthread_cond_init(&journal->load_work, &attributes);
    pthread_condattr_destroy(&attributes);
}

static int start_threads(struct journal *journal)
{
    int r = -pthread_create(&journal->writer, NULL, writer_run, journal);
    journal->has_writer = r == 0;
    if (r == 0) {
        r = -pthread_create(&journal->loader, NULL, loader_run, journal);
        journal->has_loader = r == 0;
    }
    return r;
}

int store_open_journal(struct disk **disk, struct loop *loop,
                       const struct store_callbacks *callbacks, struct store **ret_store)
{
    struct journal *journal = calloc(1, sizeof(*journal));
    if (journal == NULL) {
        return -ENOMEM;
    }
    journal->store =
        (struct store){.engine = &journal_engine, .loop = loop, .callbacks = *callbacks};
    journal->is_disk_open = true;
    init_locks(journal);
    journal->disk = *disk; /* before the threads: they read it without the lock */
    int r = start_threads(journal);
    if (r < 0) {
        journal->disk = NULL;
        journal_close(&journal->store);
        return r;
    }
    *disk = NULL;
    *ret_store = &journal->store;
    return 0;
}
