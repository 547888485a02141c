#include "worker/cache/judge_share.h"

#include <math.h>

void judge_share_asked(struct judge_share *share)
{
    share->asked += 1;
    if (share->asked > JUDGE_SHARE_ASKED) {
        share->asked /= 2;
        share->told /= 2;
    }
}

void judge_share_told(struct judge_share *share)
{
    share->told = fmin(share->told + 1, share->asked);
}

double judge_share_of(const struct judge_share *share)
{
    return share->asked <= JUDGE_SHARE_GRACE ? 1 : share->told / share->asked;
}
