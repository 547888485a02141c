/*
 * judge_share: of what a model was asked to judge lately, how much it has given a word on.
 *
 * Answers that are equal need no call; those that differ wait for a model, which may be slow, fail, or say neither yes nor no. Were
 * equal ones labels all the same, right ones alone would be left, and would open a class that is often wrong. So they teach with the
 * chance that the others do. Who asks may not be the one who hears: that errs towards teaching less. Pure; belongs to the loop.
 */
#pragma once

enum {
    JUDGE_SHARE_GRACE = 8, /* asked before anything is missing: the first words take their time */
    JUDGE_SHARE_ASKED = 64, /* beyond, all that was before counts half */
};

/* {0}: nothing was asked. */
struct judge_share {
    double asked, told;
};

void judge_share_asked(struct judge_share *share);
/* It said yes or no. */
void judge_share_told(struct judge_share *share);
/* From 0 to 1. */
double judge_share_of(const struct judge_share *share);
