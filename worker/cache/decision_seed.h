/* decision_seed: what was counted of the decision's scores on other questions, from which a class of near hits begins. */
#pragma once
#include "common/threshold.h"

const struct threshold_seed *decision_seed(void);
