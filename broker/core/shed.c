#include "broker/core/shed.h"
#include <math.h>

enum {
    MEMORY_INTERVALS = 16
}; /* RFC 8289, 5.5: an overload that returns so soon goes on where it was */

int64_t shed_interval_ms(int64_t target_ms)
{
    const int64_t ms = target_ms < SHED_INTERVAL_MOST_MS ? 2 * target_ms : SHED_INTERVAL_MOST_MS;
    return ms < SHED_INTERVAL_LEAST_MS  ? SHED_INTERVAL_LEAST_MS
           : ms > SHED_INTERVAL_MOST_MS ? SHED_INTERVAL_MOST_MS
                                        : ms;
}

/* Has every job of the last interval waited too long? */
static bool stands(struct shed *shed, const struct shed_look *look)
{
    if (look->is_last || look->waited_ms < look->target_ms) {
        shed->overloaded_at_ms = 0;
        return false;
    }
    if (shed->overloaded_at_ms == 0) {
        shed->overloaded_at_ms = look->now_ms + shed_interval_ms(look->target_ms);
        return false;
    }
    return look->now_ms >= shed->overloaded_at_ms;
}

static int64_t after(const struct shed *shed, int64_t from_ms, int64_t target_ms)
{
    return from_ms + (int64_t)((double)shed_interval_ms(target_ms) / sqrt((double)shed->count));
}

static void begin(struct shed *shed, const struct shed_look *look)
{
    const uint32_t earlier = shed->count - shed->count_before;
    const int64_t memory_ms = MEMORY_INTERVALS * shed_interval_ms(look->target_ms);
    const bool is_recent = earlier > 1 && look->now_ms - shed->next_ms < memory_ms;
    shed->count = is_recent ? earlier : 1;
    shed->count_before = shed->count;
    shed->is_shedding = true;
    shed->next_ms = after(shed, look->now_ms, look->target_ms);
}

static bool is_beyond_use(const struct shed_look *look)
{
    return look->is_hopeless || look->waited_ms > SHED_LIMIT_TARGETS * look->target_ms;
}

bool shed_judge(struct shed *shed, const struct shed_look *look)
{
    if (!stands(shed, look)) {
        shed->is_shedding = false;
        return false;
    }
    if (!shed->is_shedding) {
        begin(shed, look);
        return true;
    }
    if (look->now_ms >= shed->next_ms) {
        shed->count++;
        shed->next_ms = after(shed, shed->next_ms, look->target_ms);
        return true;
    }
    return is_beyond_use(look);
}

void shed_rest(struct shed *shed)
{
    shed->overloaded_at_ms = 0;
    shed->is_shedding = false;
}
