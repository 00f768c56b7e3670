#!/usr/bin/python3
"""Make tests/golden/metrics.txt: figures of merit with their 95 % intervals, from their definitions, by numpy.

Not by the formulas of src/base/metrics.c: accuracy, precision, recall and F1 come from lists of single images as
scikit-learn defines them, F1's variance from a numerical gradient over the multinomial covariance, the area under the
curve from all pairs, DeLong's variance from the covariance of explicit placements.  Lines:

    confusion NCLASS n[0][0] n[0][1] ...        n[truth][predicted], for the figures that follow
    FIGURE CLASS value low high                 CLASS -1: of all classes
    auc N score positive score positive ... value low high
    macro_auc N NCLASS class score ... class score ... value low high       a score for each class
"""
import pathlib

import numpy as np

Z = 1.959963984540054
NAN = float("nan")


def wilson(k, n):
    if n == 0:
        return NAN, NAN, NAN
    p = k / n
    # the two roots of (p - x)^2 = z^2 x (1 - x) / n
    low, high = np.sort(np.roots([1 + Z * Z / n, -2 * p - Z * Z / n, p * p]).real)
    return p, max(low, 0.0), min(high, 1.0)


def normal(value, variance):
    half = Z * np.sqrt(variance)
    return value, max(value - half, 0.0), min(value + half, 1.0)


def images(table):
    """Lists of single images: truth and prediction."""
    pairs = [(t, p) for t, row in enumerate(table) for p, n in enumerate(row) for _ in range(n)]
    return np.array([t for t, _ in pairs], int), np.array([p for _, p in pairs], int)


def f1_of_shares(shares):
    hits, errors = shares[0], shares[1]
    return 2 * hits / (2 * hits + errors)


def f1(truth, said, c):
    hits = np.sum((truth == c) & (said == c))
    errors = np.sum((truth == c) != (said == c))
    if not np.any(truth == c):
        return NAN, NAN
    shares = np.array([hits, errors, len(truth) - hits - errors]) / len(truth)
    step = 1e-6
    gradient = np.array([(f1_of_shares(shares + d) - f1_of_shares(shares - d)) / (2 * step) for d in np.eye(3) * step])
    covariance = (np.diag(shares) - np.outer(shares, shares)) / len(truth)
    return f1_of_shares(shares), gradient @ covariance @ gradient


def share(hits, of):
    p = hits / of if of else 0.0
    return p, p * (1 - p) / of if of else 0.0


def mean(terms):
    if not terms:
        return NAN, NAN, NAN
    return normal(np.mean([v for v, _ in terms]), np.sum([s for _, s in terms]) / len(terms) ** 2)


def figures(table):
    truth, said = images(table)
    classes = range(len(table))
    there = [c for c in classes if np.any(truth == c)]
    yield "accuracy", -1, wilson(np.sum(truth == said), len(truth))
    for c in classes:
        hits = np.sum((truth == c) & (said == c))
        yield "recall", c, wilson(hits, np.sum(truth == c))
        yield "precision", c, wilson(hits, np.sum(said == c))
        value, variance = f1(truth, said, c)
        yield "f1", c, (NAN, NAN, NAN) if np.isnan(value) else normal(value, variance)
    yield "balanced_accuracy", -1, mean([share(np.sum((truth == c) & (said == c)), np.sum(truth == c)) for c in there])
    yield "macro_precision", -1, mean([share(np.sum((truth == c) & (said == c)), np.sum(said == c)) for c in there])
    yield "macro_f1", -1, mean([f1(truth, said, c) for c in there])


def area(score, positive):
    pos, neg = score[positive == 1], score[positive == 0]
    wins = (pos[:, None] > neg[None, :]) + 0.5 * (pos[:, None] == neg[None, :])
    if len(pos) < 2 or len(neg) < 2:
        return wins.mean(), np.inf
    return wins.mean(), np.var(wins.mean(1), ddof=1) / len(pos) + np.var(wins.mean(0), ddof=1) / len(neg)


def auc(score, positive):
    if np.all(positive == 0) or np.all(positive == 1):
        return NAN, NAN, NAN
    return normal(*area(score, positive))


def macro_auc(score, classes):
    there = np.unique(classes)
    return mean([area(score[:, c], (classes == c).astype(int)) for c in there] if len(there) > 1 else [])


def text(numbers):
    return " ".join("nan" if np.isnan(x) else f"{x:.12f}" for x in numbers)


TABLES = [
    [[50, 3, 2], [4, 40, 6], [1, 7, 60]],
    [[10, 0, 0], [0, 12, 0], [0, 0, 9]],         # no error
    [[0, 5, 5], [6, 0, 4], [3, 7, 0]],           # nothing but errors
    [[20, 3, 0], [5, 11, 0], [0, 0, 0]],         # a class that does not occur
    [[20, 3, 4], [5, 11, 2], [0, 0, 0]],         # ... and is said all the same
    [[0, 8, 0], [0, 9, 1], [0, 3, 7]],           # a class that is never said
    [[1, 0], [0, 0]],
    [[0, 0], [0, 0]],
    [[931, 69], [102, 4898]],
    [[7, 1, 0, 2], [0, 9, 3, 1], [1, 0, 14, 0], [2, 2, 2, 30]],
]


def main():
    lines = []
    for table in TABLES:
        lines.append(f"confusion {len(table)} " + " ".join(str(n) for row in table for n in row))
        lines += [f"{name} {c} {text(numbers)}" for name, c, numbers in figures(table)]
    rng = np.random.RandomState(4)
    for n, levels, share_pos in ((1, 5, 1.0), (2, 2, 0.5), (9, 3, 0.3), (60, 7, 0.5), (80, 1 << 20, 0.4), (40, 1, 0.5),
                                 (50, 64, 0.9), (12, 4, 0.0)):
        positive = (np.arange(n) < round(n * share_pos)).astype(int)[rng.permutation(n)]
        score = np.floor(np.clip(rng.rand(n) * 0.8 + 0.2 * positive, 0, 0.999999) * levels) / levels
        score = score.astype(np.float32).astype(float)
        lines.append(f"auc {n} " + " ".join(f"{s:.9g} {p}" for s, p in zip(score, positive)) + " " +
                     text(auc(score, positive)))
    lines.append("auc 4 0.1 0 0.2 0 0.8 1 0.9 1 " + text(auc(np.array([.1, .2, .8, .9]), np.array([0, 0, 1, 1]))))
    for n, there in ((70, (0, 1, 2)), (30, (0, 2)), (12, (1,)), (15, (0,) * 14 + (1,))):
        classes = np.array([there[i % len(there)] for i in range(n)])
        score = np.floor(100 * (rng.rand(n, 3) + 0.5 * np.eye(3)[classes])) / 128  # exact in binary, with ties
        rows = " ".join(f"{c} " + " ".join(f"{s:.9g}" for s in row) for c, row in zip(classes, score))
        lines.append(f"macro_auc {n} 3 {rows} {text(macro_auc(score, classes))}")
    pathlib.Path(__file__).with_name("metrics.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
