#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include "broker/peers.h"

static struct peers *create(void)
{
    struct peers *peers = NULL;
    cr_assert_eq(peers_create(7, &peers), 0);
    return peers;
}

static struct peer *add(struct peers *peers, enum peer_side side, const char *id, int64_t now_ms)
{
    struct peer *peer = NULL;
    cr_assert_eq(peers_add(peers, side, id, strlen(id), "name", now_ms, &peer), 0);
    return peer;
}

Test(peers, a_peer_is_found_by_its_id_and_by_its_number_until_it_is_removed)
{
    struct peers *peers = create();
    cr_assert_null(peers_find(peers, PEER_CLIENT, "a", 1));
    struct peer *peer = add(peers, PEER_CLIENT, "a", 0);
    const uint64_t number = peer->number;
    cr_assert_eq(peers_find(peers, PEER_CLIENT, "a", 1), peer);
    cr_assert_eq(peers_by_number(peers, number), peer);
    peers_remove(peers, &peer);
    cr_assert_null(peer);
    cr_assert_null(peers_find(peers, PEER_CLIENT, "a", 1));
    cr_assert_null(peers_by_number(peers, number));
    peers_destroy(&peers);
}

Test(peers, the_same_id_on_the_other_side_is_another_peer)
{
    struct peers *peers = create();
    const struct peer *client = add(peers, PEER_CLIENT, "a", 0);
    const struct peer *worker = add(peers, PEER_WORKER, "a", 0);
    cr_assert_neq(client->number, worker->number);
    cr_assert_eq(peers_find(peers, PEER_WORKER, "a", 1), worker);
    cr_assert_eq(peers_count(peers, PEER_CLIENT), 1);
    peers_destroy(&peers);
}

Test(peers, numbers_are_never_used_again)
{
    struct peers *peers = create();
    uint64_t before = 0;
    for (int i = 0; i < 1000; i++) {
        struct peer *peer = add(peers, PEER_CLIENT, "a", 0);
        cr_assert_gt(peer->number, before);
        before = peer->number;
        peers_remove(peers, &peer);
        cr_assert_null(peers_by_number(peers, before));
    }
    cr_assert_null(peers_by_number(peers, 0));
    peers_destroy(&peers);
}

Test(peers, thousands_are_all_found)
{
    enum { PEERS = 5000 };
    struct peers *peers = create();
    uint64_t numbers[PEERS];
    char id[16];
    for (int i = 0; i < PEERS; i++) {
        (void)snprintf(id, sizeof(id), "peer-%d", i);
        numbers[i] = add(peers, i % 2 == 0 ? PEER_CLIENT : PEER_WORKER, id, i)->number;
    }
    for (int i = 0; i < PEERS; i++) {
        (void)snprintf(id, sizeof(id), "peer-%d", i);
        const struct peer *peer =
            peers_find(peers, i % 2 == 0 ? PEER_CLIENT : PEER_WORKER, id, strlen(id));
        cr_assert_not_null(peer);
        cr_assert_eq(peer->number, numbers[i]);
    }
    cr_assert_eq(peers_count(peers, PEER_WORKER), PEERS / 2);
    peers_destroy(&peers);
}

Test(peers, the_most_silent_is_who_was_heard_of_longest_ago)
{
    struct peers *peers = create();
    cr_assert_null(peers_most_silent(peers, PEER_CLIENT));
    struct peer *a = add(peers, PEER_CLIENT, "a", 1);
    struct peer *b = add(peers, PEER_CLIENT, "b", 2);
    cr_assert_eq(peers_most_silent(peers, PEER_CLIENT), a);
    peers_touch(peers, a, 3);
    cr_assert_eq(peers_most_silent(peers, PEER_CLIENT), b);
    cr_assert_eq(a->heard_ms, 3);
    peers_destroy(&peers);
}
