#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "client/placement.h"

enum { BROKERS = 5, TENANTS = 5000 };

static char names[BROKERS][32];

static void list_brokers(char *endpoints[BROKERS], size_t first, size_t step)
{
    for (size_t i = 0; i < BROKERS; i++) {
        const size_t at = (first + i * step) % BROKERS;
        snprintf(names[at], sizeof(names[at]), "tcp://broker-%zu:7700", at);
        endpoints[i] = names[at];
    }
}

Test(placement, order_does_not_depend_on_the_order_given)
{
    for (int tenant = 0; tenant < 100; tenant++) {
        char name[32];
        char *one[BROKERS], *other[BROKERS];
        snprintf(name, sizeof(name), "tenant-%d", tenant);
        list_brokers(one, 0, 1);
        list_brokers(other, 3, 2);
        placement_sort(name, one, BROKERS);
        placement_sort(name, other, BROKERS);
        for (size_t i = 0; i < BROKERS; i++) {
            cr_assert_str_eq(one[i], other[i]);
        }
    }
}

Test(placement, tenants_spread_evenly_and_only_those_of_a_lost_broker_move)
{
    size_t homes[BROKERS] = {0};
    for (int tenant = 0; tenant < TENANTS; tenant++) {
        char name[32];
        char *all[BROKERS], *fewer[BROKERS];
        snprintf(name, sizeof(name), "tenant-%d", tenant);
        list_brokers(all, 0, 1);
        list_brokers(fewer, 0, 1);
        placement_sort(name, all, BROKERS);
        placement_sort(name, fewer, BROKERS - 1); /* without broker 4 */
        const int home = all[0][strlen("tcp://broker-")] - '0';
        homes[home]++;
        if (home != BROKERS - 1) {
            cr_assert_str_eq(all[0], fewer[0]);
        }
    }
    for (size_t i = 0; i < BROKERS; i++) {
        cr_assert_gt(homes[i], TENANTS / BROKERS * 8 / 10, "broker %zu is home to %zu", i, homes[i]);
    }
}
