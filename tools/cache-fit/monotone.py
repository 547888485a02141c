"""Logistic regression whose coefficients keep within bounds, by projected gradient (FISTA with restarts), in numpy alone.

Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm (2009); O'Donoghue and Candès, Adaptive Restart (2015).
"""
import numpy

RIDGE = 1e-4
STEPS_MAX = 4000
MOVED_LEAST = 1e-6


def fit(features, same, weights, least, most):
    """Returns bias and coefficients, each from its `least` to its `most`. `weights`: of the rows."""
    weights = weights / weights.sum()
    scale = features.std(axis=0)
    scale[scale == 0] = 1
    columns = numpy.hstack([numpy.ones((len(features), 1)), features / scale])
    least = numpy.concatenate([[-numpy.inf], least * scale])
    most = numpy.concatenate([[numpy.inf], most * scale])
    ridge = numpy.concatenate([[0], numpy.full(features.shape[1], RIDGE)])
    curvature = numpy.linalg.eigvalsh((columns * weights[:, None]).T @ columns)[-1] / 4 + RIDGE
    values = numpy.zeros(columns.shape[1])
    ahead, momentum = values.copy(), 1.0
    for _ in range(STEPS_MAX):
        likely = 1 / (1 + numpy.exp(-numpy.clip(columns @ ahead, -30, 30)))
        gradient = columns.T @ (weights * (likely - same)) + ridge * ahead
        moved = ahead - gradient / curvature
        moved = numpy.clip(moved, least, most)
        if (ahead - moved) @ (moved - values) > 0:
            momentum = 1.0
        following = (1 + (1 + 4 * momentum * momentum) ** 0.5) / 2
        ahead = moved + (momentum - 1) / following * (moved - values)
        change = numpy.abs(moved - values).max()
        values, momentum = moved, following
        if change < MOVED_LEAST:
            break
    return numpy.concatenate([values[:1], values[1:] / scale])


def auc(score, same):
    """Chance that a pair with the same answer scores above one without; ties count half."""
    order = numpy.argsort(score, kind="stable")
    ranks = numpy.empty(len(score))
    sorted_scores = score[order]
    starts = numpy.flatnonzero(numpy.concatenate([[True], sorted_scores[1:] != sorted_scores[:-1]]))
    ends = numpy.append(starts[1:], len(score))
    for start, end in zip(starts, ends):
        ranks[order[start:end]] = (start + end + 1) / 2
    positives = same.sum()
    return (ranks[same].sum() - positives * (positives + 1) / 2) / (positives * (len(same) - positives))


def share_found(score, same, share_wrong):
    """True positive rate at the threshold that lets `share_wrong` of the negatives through."""
    negatives = numpy.sort(score[~same])[::-1]
    threshold = negatives[int(share_wrong * len(negatives))]
    return (score[same] > threshold).mean()
