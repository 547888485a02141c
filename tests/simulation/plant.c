#include "tests/simulation/plant.h"
#include <errno.h>
#include <string.h>

static const char *const names[PLANTS] = {
    [PLANT_NONE] = "none",
    [PLANT_DROP_PUT] = "drop-put",
    [PLANT_KEEP_PAYLOAD] = "keep-payload",
    [PLANT_EARLY_RELEASE] = "early-release",
    [PLANT_LYING_SYNC] = "lying-sync",
    [PLANT_FORGET_CONCLUDED] = "forget-concluded",
    [PLANT_DOUBLE_DISPATCH] = "double-dispatch",
    [PLANT_IGNORE_CREDIT] = "ignore-credit",
    [PLANT_IGNORE_DELAY] = "ignore-delay",
    [PLANT_IGNORE_DEADLINE] = "ignore-deadline",
    [PLANT_IGNORE_PAUSE] = "ignore-pause",
    [PLANT_IGNORE_POOL] = "ignore-pool",
    [PLANT_CHANGE_RESULT] = "change-result",
    [PLANT_CROSS_TENANTS] = "cross-tenants",
    [PLANT_LOSE_RESULT] = "lose-result",
    [PLANT_EQUAL_TENANTS] = "equal-tenants",
    [PLANT_EQUAL_TIERS] = "equal-tiers",
    [PLANT_LOSE_CREDIT] = "lose-credit",
    [PLANT_IGNORE_KEY] = "ignore-key",
    [PLANT_WRONG_LEADER] = "wrong-leader",
    [PLANT_HIDE_MISMATCH] = "hide-mismatch",
    [PLANT_LOSE_CHUNK] = "lose-chunk",
    [PLANT_STREAM_TO_ALL] = "stream-to-all",
    [PLANT_KEEP_CONCLUSION] = "keep-conclusion",
    [PLANT_HIDE_COST] = "hide-cost",
    [PLANT_BLAME_INNOCENTS] = "blame-innocents",
    [PLANT_IGNORE_NEEDS] = "ignore-needs",
};

const char *plant_name(enum plant plant)
{
    return names[plant];
}

int plant_parse(const char *name, enum plant *ret_plant)
{
    for (enum plant plant = PLANT_NONE; plant < PLANTS; plant++) {
        if (strcmp(names[plant], name) == 0) {
            *ret_plant = plant;
            return 0;
        }
    }
    return -EINVAL;
}
