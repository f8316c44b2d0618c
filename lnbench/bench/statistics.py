"""From times to an interval on a ratio: pure functions over numbers.

The unit of replication is the epoch (one set of fresh processes): what differs from start to start is then part of the
spread and not mistaken for a difference. Knows neither cases nor backends; what a verdict means is in `verdicts.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALPHA = 0.05
# What the times of one epoch come to: the median of the rounds' ratios, or a quantile of each side's times.
PAIRED = "paired"
QUANTILES = {"q25": 0.25, "median": 0.5, "min": 0.0}
STATISTICS = (PAIRED, *QUANTILES)
# Up to this many epochs all sign patterns are counted; above it a fixed random subset stands for them.
EXACT_FLIPS = 14
RANDOM_FLIPS = 1 << 13


def t_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def t_above(statistic: float, freedom: float) -> float:
    """Probability that Student's t exceeds `statistic`."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -statistic))


def log_quantile(seconds: Sequence[float] | np.ndarray, quantile: float = QUANTILES["q25"]) -> float:
    """The summary of one epoch of one side: a low quantile of the logarithms, as disturbance only ever adds time.

    seconds: positive times per call of one backend in the rounds of one epoch.
    """
    return float(np.quantile(np.log(np.asarray(seconds, dtype=np.float64)), quantile))


def log_ratio(seconds: Sequence[float], baseline: Sequence[float], statistic: str = PAIRED) -> float:
    """d_e, the log ratio of one epoch, from the times of both sides in its rounds, in the same order.

    statistic: "paired" takes the median over rounds of ln(t / t0), so that what both sides of a round suffer together
    (another clock frequency, a neighbour on the same core) cancels out: on a shared machine that jumps between two
    speeds, quartiles of either side fall now on one speed and now on the other. Else a name in `QUANTILES`.
    """
    if statistic == PAIRED:
        return float(np.median(np.log(np.asarray(seconds)) - np.log(np.asarray(baseline))))
    return log_quantile(seconds, QUANTILES[statistic]) - log_quantile(baseline, QUANTILES[statistic])


def log_ratios(
    times: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]], statistic: str = PAIRED
) -> np.ndarray:
    """d_e for every epoch e; both sequences hold the same epochs in the same order."""
    return np.array([log_ratio(mine, base, statistic) for mine, base in zip(times, baseline, strict=True)])


@dataclass(frozen=True, slots=True)
class Estimate:
    """Mean log ratio and its interval from the log ratios of `epochs` epochs.

    theta, low, high: natural logarithms; low and high are infinite where one epoch says nothing of the spread.
    spread: standard deviation between epochs. errors: pairs (standard error of theta, degrees of freedom) that the
        interval had to satisfy.
    """

    theta: float
    low: float
    high: float
    spread: float
    epochs: int
    errors: tuple[tuple[float, int], ...] = ()

    @property
    def ratio(self) -> float:
        """Time divided by the baseline's time; above 1 is slower."""
        return math.exp(self.theta)

    @property
    def half_width(self) -> float:
        """Half of the interval's width, as a logarithm."""
        return (self.high - self.low) / 2

    def excludes(self, value: float) -> bool:
        """Whether `value` (a logarithm) lies outside the interval."""
        return not self.low <= value <= self.high

    def p_value(self, boundary: float = 0.0) -> float:
        """Two-sided p value of "the log ratio is `boundary`" (the test that belongs to the interval)."""
        distance = abs(self.theta - boundary)
        return max((_p(distance, error, freedom) for error, freedom in self.errors), default=1.0)


def _p(distance: float, error: float, freedom: int) -> float:
    if error == 0:
        return 1.0 if distance == 0 else 0.0
    return 2 * t_above(distance / error, freedom)


def estimate(differences: Sequence[float] | np.ndarray, alpha: float = ALPHA, *, pilot: int | None = None) -> Estimate:
    """theta +- t(1 - alpha/2, E - 1) S / sqrt(E) over the log ratios of E >= 1 epochs.

    pilot: the first `pilot` epochs decided how many followed. Their spread alone then gives Stein's exact interval,
    theta +- t(1 - alpha/2, pilot - 1) S_pilot / sqrt(E); the wider of the two is taken, because the usual one covers
    only 93.5 % after such a decision.
    """
    d = np.asarray(differences, dtype=np.float64)
    n = len(d)
    theta = float(d.mean())
    if n < 2:
        return Estimate(theta, -math.inf, math.inf, math.inf, n)
    spread = float(d.std(ddof=1))
    errors = [(spread / math.sqrt(n), n - 1)]
    if pilot is not None and 2 <= pilot < n:
        errors.append((float(d[:pilot].std(ddof=1)) / math.sqrt(n), pilot - 1))
    half = max(t_quantile(1 - alpha / 2, freedom) * error for error, freedom in errors)
    return Estimate(theta, theta - half, theta + half, spread, n, tuple(errors))


def sign_flips(differences: Sequence[float] | np.ndarray) -> float:
    """P value of the test that flips whole epochs: the share of sign patterns with a sum as large as the one seen.

    Free of any distribution. Cannot fall below 2^(1 - E), so with fewer than 6 epochs it can never reach 5 %.
    """
    d = np.asarray(differences, dtype=np.float64)
    if len(d) <= EXACT_FLIPS:
        sums = d[:1]  # the first sign may be fixed: a pattern and its opposite have the same absolute sum
        for value in d[1:]:
            sums = np.concatenate((sums + value, sums - value))
        extra = 0
    else:
        signs = np.random.default_rng(len(d)).integers(0, 2, (RANDOM_FLIPS, len(d))) * 2 - 1
        sums, extra = signs @ d, 1
    seen = abs(float(d.sum()))
    slack = 1e-12 * float(np.abs(d).sum())
    return float((np.count_nonzero(np.abs(sums) >= seen - slack) + extra) / (len(sums) + extra))


def flips_can_fire(epochs: int, alpha: float = ALPHA) -> bool:
    """Whether the sign-flip test of so many epochs could have rejected at all."""
    return 2.0 ** (1 - epochs) <= alpha


def holm(p_values: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Which hypotheses Holm's step-down procedure rejects; the chance of any false one stays below alpha."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = [False] * len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > alpha / (len(order) - rank):
            break
        rejected[i] = True
    return rejected


def benjamini_hochberg(p_values: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Which hypotheses are rejected with an expected share of false ones among them below alpha."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    keep = max((rank for rank, i in enumerate(order, 1) if p_values[i] <= alpha * rank / len(order)), default=0)
    chosen = set(order[:keep])
    return [i in chosen for i in range(len(p_values))]


def stein_epochs(spread: float, pilot: int, half_width: float, alpha: float = ALPHA) -> int:
    """Epochs that bring the interval to `half_width` (log), from the spread of `pilot` epochs alone (Stein 1945).

    The number depends on the pilot's spread and not on its mean; looking again at the mean after every epoch would
    turn 5 % false alarms into 18 %.
    """
    if pilot < 2 or not math.isfinite(spread):
        return pilot
    return max(pilot, math.ceil((t_quantile(1 - alpha / 2, pilot - 1) * spread / half_width) ** 2))


def resolution(spread: float, epochs: int, alpha: float = ALPHA, power: float = 0.9) -> float:
    """The smallest log ratio that is found with probability `power` (minimum detectable effect)."""
    if epochs < 2:
        return math.inf
    freedom = epochs - 1
    return (t_quantile(1 - alpha / 2, freedom) + t_quantile(power, freedom)) * spread / math.sqrt(epochs)


def best_rounds(
    start_cost: float, round_cost: float, within: float, between: float, *, least: int, most: int = 64
) -> int:
    """Rounds per epoch that make the interval narrowest for a given time (Kalibera and Jones 2013).

    start_cost: seconds to start the workers, the share of one case. round_cost: seconds of one round.
    within: standard deviation of one round's log ratio. between: that of an epoch's own effect. The result is a
    multiple of `least` (the number of backends: whole Latin squares), at most `most` or, where larger, `least`.
    """
    if between <= 0:
        wanted: float = most if within > 0 else least
    else:
        wanted = math.sqrt(start_cost / max(round_cost, 1e-9) * (math.pi / 2) * (within / between) ** 2)
    squares = math.ceil(min(wanted, most) / least)
    return max(1, min(squares, most // least)) * least


def binomial_interval(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact (Clopper and Pearson) interval of a proportion."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, trials - hits + 1, tail))
    high = 1.0 if hits == trials else float(betaincinv(hits + 1, trials - hits, 1 - tail))
    return low, high


def binomial_most(trials: int, alpha: float = ALPHA, level: float = 0.01) -> int:
    """The largest count that `trials` tests at `alpha` may reject by chance before it is unusual at `level`."""
    from scipy.special import bdtrc

    return next((k for k in range(trials + 1) if float(bdtrc(k, trials, alpha)) <= level), trials)
