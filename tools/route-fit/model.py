"""Logistic regression of what a strong model gains on the features, within sources, in numpy alone.

- Each source has its own intercept: that one benchmark is harder than another says nothing about a prompt.
- A ridge holds every weight near its prior, which was set by hand, in units of the feature's spread within sources: what the data are silent
  about keeps its prior, and a feature that hardly varies within a source (SPREAD_MIN) keeps it altogether.
- What can only speak for complexity keeps to 0 or more, what can only speak against it to 0 or less.
- Prompts that neither model got right count as something between: HARD of a gain.
"""
import itertools

import numpy

from data import FOLDS

# What a feature of 255 adds to the logit before any data. Those that are not named: 0, and either sign.
PRIOR = {"last_length": 1.0, "input_length": 0.5, "turns": 0.5, "numbers": 0.25, "maths": 0.5, "code": 0.5, "steps": 0.5, "constraints": 0.25,
         "extraction": -0.5, "short_answer": -0.5, "negation": 0.25, "relations": 0.25, "tools": 0.5, "images": 0.25}
SPREAD_MIN, SPREAD_FLOOR = 0.03, 0.05
RIDGES = 100.0, 300.0, 1000.0, 3000.0
HARD = 0.0, 0.5, 1.0
INTERCEPT_RIDGE = 1e-3
STEPS_MAX, MOVED_LEAST = 400, 1e-5


class Settings:
    def __init__(self, ridge, hard):
        self.ridge, self.hard = ridge, hard

    def __str__(self):
        return f"ridge {self.ridge:g}, hard counts {self.hard:g}"


ALL_SETTINGS = [Settings(*values) for values in itertools.product(RIDGES, HARD)]


def spread_within(features, source):
    centred = features.copy()
    for name in set(source):
        centred[source == name] -= features[source == name].mean(axis=0)
    return centred.std(axis=0)


def bounds_of(prior, spread, unit):
    least = numpy.where(prior > 0, 0, -numpy.inf)
    most = numpy.where(prior < 0, 0, numpy.inf)
    is_silent = spread < SPREAD_MIN
    return numpy.where(is_silent, prior * unit, least), numpy.where(is_silent, prior * unit, most)


def logistic(values):
    return 1 / (1 + numpy.exp(-values))


def descend(columns, target, ridge, centre, least, most):
    """Projected gradient, accelerated and restarted (Beck and Teboulle 2009; O'Donoghue and Candès 2015)."""
    step = 1 / (numpy.linalg.eigvalsh(columns.T @ columns)[-1] / 4 + ridge.max())
    here = ahead = numpy.clip(centre, least, most)
    pace = 1.0
    for _ in range(STEPS_MAX):
        gradient = columns.T @ (logistic(columns @ ahead) - target) + ridge * (ahead - centre)
        there = numpy.clip(ahead - step * gradient, least, most)
        if (ahead - there) @ (there - here) > 0:
            pace = 1.0
        next_pace = (1 + numpy.sqrt(1 + 4 * pace * pace)) / 2
        ahead = there + (pace - 1) / next_pace * (there - here)
        moved, here, pace = numpy.abs(there - here).max(), there, next_pace
        if moved < MOVED_LEAST:
            break
    return here


def fit(names, features, prompts, chosen, settings):
    """Weights of the features, from 0 to 1, by the chosen rows."""
    features, source = features[chosen], prompts.source[chosen]
    target = numpy.maximum(prompts.is_gain[chosen], settings.hard * prompts.is_weak_wrong[chosen])
    spread = spread_within(features, source)
    unit = numpy.maximum(spread, SPREAD_FLOOR)
    prior = numpy.array([PRIOR.get(name, 0.0) for name in names])
    least, most = bounds_of(prior, spread, unit)
    is_of = numpy.array([source == name for name in sorted(set(source))], float).T  # an intercept each
    none, free = numpy.zeros(is_of.shape[1]), numpy.full(is_of.shape[1], numpy.inf)
    ridge = numpy.concatenate([numpy.full(len(names), settings.ridge), none + INTERCEPT_RIDGE])
    found = descend(numpy.hstack([features / unit, is_of]), target, ridge, numpy.concatenate([prior * unit, none]),
                    numpy.concatenate([least, -free]), numpy.concatenate([most, free]))
    return found[:len(names)] / unit


def auc(scores, is_positive):
    """The share of pairs in the right order; a tie is half a pair."""
    values, place, counts = numpy.unique(scores, return_inverse=True, return_counts=True)
    ranks = (numpy.cumsum(counts) - (counts - 1) / 2)[place]
    positives = is_positive.sum()
    pairs = positives * (len(scores) - positives)
    return (ranks[is_positive].sum() - positives * (positives + 1) / 2) / pairs if pairs > 0 else 0.5


def mean_auc(scores, prompts, chosen):
    sources = sorted(set(prompts.source[chosen]))
    return numpy.mean([auc(scores[chosen & (prompts.source == name)], prompts.is_gain[chosen & (prompts.source == name)]) for name in sources])


def scores_beside(features, weights, source, train):
    """Measured by the mean and spread of the source's rows that were fitted on: what is ranked together comes from several fits."""
    scores = features @ weights
    for name in set(source):
        known = scores[train & (source == name)]
        if len(known) > 0:
            scores[source == name] = (scores[source == name] - known.mean()) / max(known.std(), 1e-9)
    return scores


def scores_by_fold(names, features, prompts, chosen, folds, settings):
    """Each chosen row's by weights that were fitted on the other folds' chosen rows."""
    scores = numpy.zeros(len(folds))
    for fold in range(FOLDS):
        train = chosen & (folds != fold)
        weights = fit(names, features, prompts, train, settings)
        scores[folds == fold] = scores_beside(features, weights, prompts.source, train)[folds == fold]
    return scores


def choose(names, features, prompts, chosen, folds):
    """The settings whose scores, on folds left out, are best by the mean AUC of the sources."""
    worth = [mean_auc(scores_by_fold(names, features, prompts, chosen, folds, settings), prompts, chosen) for settings in ALL_SETTINGS]
    return ALL_SETTINGS[int(numpy.argmax(worth))]


def nested_scores(names, features, prompts, seed):
    """Each row's score by weights and settings that know nothing of its fold; and the settings chosen."""
    folds, inner = prompts.folds(seed), prompts.folds(f"{seed} inner")
    scores, chosen_settings = numpy.zeros(len(folds)), []
    for fold in range(FOLDS):
        train = folds != fold
        settings = choose(names, features, prompts, train, inner)
        weights = fit(names, features, prompts, train, settings)
        scores[~train] = scores_beside(features, weights, prompts.source, train)[~train]
        chosen_settings.append(str(settings))
    return scores, chosen_settings
