/*
 * What threads may share of common/: blobs, whose last owner may be any of them, a loop that others
 * wake, and the name that one of them looks up. A plain program, since ThreadSanitizer and
 * Criterion do not go together; under it a race ends the program.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/blob.h"
#include "common/loop.h"
#include "common/resolver.h"

enum { THREADS = 4, BLOBS = 20000, WAKES = 2000, LOOKUPS = 20 };

#define REQUIRE(fact)                                                                              \
    do {                                                                                           \
        if (!(fact)) {                                                                             \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #fact);                     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

struct shared {
    struct loop *loop;
    struct blob *blobs[BLOBS];
    atomic_size_t released;
    atomic_size_t wakes;
};

/* Plain memory that the owners wrote before they let go must be seen by whoever releases. */
struct buffer {
    struct shared *shared;
    unsigned char marks[THREADS];
};

static void release(void *room)
{
    struct buffer *buffer = room;
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(buffer->marks[i] == i + 1);
    }
    atomic_fetch_add(&buffer->shared->released, 1);
    free(buffer);
}

struct part {
    struct shared *shared;
    size_t number;
};

static void *drop_references(void *context)
{
    const struct part *part = context;
    for (size_t i = 0; i < BLOBS; i++) {
        struct blob *mine = part->shared->blobs[i];
        struct buffer *buffer = (struct buffer *)blob_data(mine); /* of which this part is ours */
        buffer->marks[part->number] = (unsigned char)(part->number + 1);
        blob_unref(&mine);
    }
    for (size_t i = 0; i < WAKES; i++) {
        atomic_fetch_add(&part->shared->wakes, 1);
        loop_wake(part->shared->loop);
    }
    return NULL;
}

static void create_blobs(struct shared *shared)
{
    for (size_t i = 0; i < BLOBS; i++) {
        struct buffer *buffer = calloc(1, sizeof(*buffer));
        REQUIRE(buffer != NULL);
        buffer->shared = shared;
        REQUIRE(blob_wrap(buffer, sizeof(*buffer), release, buffer, &shared->blobs[i]) == 0);
        for (size_t owner = 1; owner < THREADS; owner++) {
            (void)blob_ref(shared->blobs[i]);
        }
    }
}

static void note_resolved(void *context)
{
    *(bool *)context = true;
}

/* A name is looked up by a thread that nobody waits for, least of all when nobody wants to know. */
static void look_up_names(struct loop *loop)
{
    struct link_address address;
    REQUIRE(link_address_parse("tcp://localhost:1", false, &address) == 0);
    for (size_t i = 0; i < LOOKUPS; i++) {
        struct link_socket_name names[RESOLVER_ADDRESSES_MAX];
        struct resolver *resolver = NULL;
        bool is_resolved = false;
        REQUIRE(resolver_start(loop, &address, note_resolved, &is_resolved, &resolver) == 0);
        while (!is_resolved && i % 2 == 0) {
            REQUIRE(loop_turn(loop, -1) == 0);
        }
        REQUIRE(!is_resolved || resolver_take(resolver, names) > 0);
        resolver_destroy(&resolver);
    }
}

int main(void)
{
    static struct shared shared;
    pthread_t threads[THREADS];
    struct part parts[THREADS];
    REQUIRE(loop_create(&shared.loop) == 0);
    create_blobs(&shared);
    for (size_t i = 0; i < THREADS; i++) {
        parts[i] = (struct part){.shared = &shared, .number = i};
        REQUIRE(pthread_create(&threads[i], NULL, drop_references, &parts[i]) == 0);
    }
    /* A wake that were lost would leave the loop asleep here, and the test would time out. */
    while (atomic_load(&shared.wakes) < THREADS * WAKES) {
        REQUIRE(loop_turn(shared.loop, -1) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    }
    REQUIRE(atomic_load(&shared.released) == BLOBS);
    look_up_names(shared.loop);
    loop_destroy(&shared.loop);
    return 0;
}
