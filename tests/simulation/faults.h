/* faults: what breaks while a run is not quiet, and what operators do meanwhile. */
#pragma once
#include "tests/simulation/simulation.h"

/* Plans the first of each. */
void faults_begin(struct simulation *simulation);
/* One fault of a kind that can happen now; the next one is planned. */
void faults_strike(struct simulation *simulation);
/* One act of an operator; the next one is planned. */
void faults_operate(struct simulation *simulation);
/* Nothing breaks any more, and what is broken recovers. */
void faults_end(struct simulation *simulation);
/* What an operator resumed just before a crash may be paused again after it. */
void faults_resume_all(struct simulation *simulation);
const char *faults_name(enum fault_kind kind);
