#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include "client/pending.h"

enum { JOBS = 3000, IDS = 1000 };

static struct id number_id(unsigned number)
{
    struct id id = {{1}};
    memcpy(id.bytes + 8, &number, sizeof(number));
    return id;
}

/* Three jobs under each id; taken out one after another, the others stay findable. */
Test(pending, finds_all_under_one_id_while_others_come_and_go)
{
    struct pending_table table;
    struct pending *jobs = calloc(JOBS, sizeof(*jobs));
    cr_assert_eq(pending_table_init(&table, 42), 0);
    for (unsigned i = 0; i < JOBS; i++) {
        jobs[i].wire_id = number_id(i % IDS);
        cr_assert_eq(pending_table_add(&table, &jobs[i]), 0);
    }
    for (unsigned left = 3; left > 0; left--) {
        for (unsigned i = 0; i < IDS; i++) {
            const struct id id = number_id(i);
            size_t found = 0;
            struct pending *last = NULL;
            for (struct pending *at = pending_table_first(&table, &id); at != NULL; at = pending_table_next(at)) {
                cr_assert(id_equal(&at->wire_id, &id));
                last = at;
                found++;
            }
            cr_assert_eq(found, left);
            pending_table_remove(&table, last);
        }
    }
    cr_assert_eq(table.length, 0);
    pending_table_finish(&table);
    free(jobs);
}

Test(pending, unknown_id_is_not_found)
{
    struct pending_table table;
    const struct id id = number_id(7);
    cr_assert_eq(pending_table_init(&table, 1), 0);
    cr_assert_null(pending_table_first(&table, &id));
    pending_table_finish(&table);
}
