"""Search along a direction for a step that satisfies the strong Wolfe conditions.

    f(x + t p) <= f(x) + c1 t g·p        |g(x + t p)·p| <= c2 |g·p|

The algorithm is that of J. J. Moré and D. J. Thuente, ACM Trans. Math. Softw. 20, 286 (1994): an interval that holds
such a step, with the best trial at one end, shrinks by safeguarded cubic and quadratic interpolation. It asks for the
same points, bit for bit, as the search that scipy's BFGS tries first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

Function = Callable[[np.ndarray], tuple[float, np.ndarray]]

SHORTEST, LONGEST = 1e-100, 1e100
NARROWEST = 1e-14  # relative width of the interval at which the precision of float64 is reached
TRIALS = 100  # of one search
SHRINK = 0.66  # the interval is halved where two steps have not shrunk it to this part
GROW_LEAST, GROW_MOST = 1.1, 4.0  # extrapolation, in units of the last step


@dataclass(frozen=True)
class Trial:
    """A point x + length p of the search."""

    length: np.float64
    loss: np.float64
    slope: np.float64
    """g·p"""
    gradient: np.ndarray
    """(n,)"""

    def tilted(self, slope: float) -> Trial:
        """The same point of the function f(t) - slope t."""
        return replace(self, loss=self.loss - self.length * slope, slope=self.slope - slope)


def strong_wolfe(
    f: Function,
    x: np.ndarray,
    p: np.ndarray,
    loss: float,
    g: np.ndarray,
    previous: float,
    c1: float = 1e-4,
    c2: float = 0.9,
) -> Trial | None:
    """Find a step along p that satisfies the strong Wolfe conditions.

    Args:
        f: x (n,) -> (loss, gradient (n,)). Where the loss is not finite, the way back to the best trial is halved.
        x: start, (n,).
        p: direction of descent, (n,).
        loss: f at x.
        g: gradient at x, (n,).
        previous: loss before the last step, from which the length of the first trial follows (at most 1).
        c1: factor of the sufficient decrease.
        c2: factor of the curvature condition.

    Returns:
        The accepted trial, which is the last point that was asked for; None where there is no such step, because p does
        not descend or the precision of the loss is reached.
    """
    start = Trial(np.float64(0.0), np.float64(loss), np.float64(g @ p), g)

    def trial(length: np.float64, best: Trial) -> Trial:
        loss, gradient = f(x + length * p)
        while not np.isfinite(loss) and abs(length - best.length) > NARROWEST * abs(length):
            length = best.length + 0.5 * (length - best.length)
            loss, gradient = f(x + length * p)
        return Trial(length, np.float64(loss), np.float64(gradient @ p), gradient)

    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        if not start.slope < 0:
            return None
        guess = 1.01 * 2 * (start.loss - previous) / start.slope
        length = np.float64(min(1.0, guess) if guess >= 0 else 1.0)
        if not SHORTEST <= length <= LONGEST:
            return None
        return _search(trial, start, trial(length, start), c1, c2)


def _search(
    trial: Callable[[np.float64, Trial], Trial], start: Trial, now: Trial, c1: float, c2: float
) -> Trial | None:
    """Search from a first trial `now`; trial(length, best so far) evaluates another one."""
    enough = c1 * start.slope
    best, other, bracketed, decreasing = start, start, False, True
    low, high = np.float64(0.0), now.length + GROW_MOST * now.length
    width, width_before = LONGEST - SHORTEST, 2 * (LONGEST - SHORTEST)
    for _ in range(TRIALS - 1):
        bound = start.loss + now.length * enough
        if now.loss <= bound and abs(now.slope) <= c2 * -start.slope:
            return now
        if bracketed and (now.length <= low or now.length >= high or high - low <= NARROWEST * high):
            return None
        if now.length in (SHORTEST, LONGEST):
            return None
        if now.loss <= bound and now.slope >= 0:
            decreasing = False
        tilt = enough if decreasing and bound < now.loss <= best.loss else 0.0
        best, other, length, bracketed = _shrink(best, other, now, bracketed, low, high, tilt)
        if bracketed:
            if abs(other.length - best.length) >= SHRINK * width_before:
                length = best.length + 0.5 * (other.length - best.length)
            width_before, width = width, abs(other.length - best.length)
            low, high = min(best.length, other.length), max(best.length, other.length)
        else:
            low = length + GROW_LEAST * (length - best.length)
            high = length + GROW_MOST * (length - best.length)
        length = np.clip(length, SHORTEST, LONGEST)
        if bracketed and (length <= low or length >= high or high - low <= NARROWEST * high):
            length = best.length
        if not np.isfinite(length):
            return None
        now = trial(length, best)
    return None


def _shrink(
    best: Trial, other: Trial, now: Trial, bracketed: bool, low: np.float64, high: np.float64, tilt: float
) -> tuple[Trial, Trial, np.float64, bool]:
    """(best, other end, next length, whether a step is bracketed) after the trial `now`.

    As long as no trial has satisfied the decrease, the function f(t) - tilt t is interpolated (section 3 of the paper).
    """
    if tilt:
        best, other, now = best.tilted(tilt), other.tilted(tilt), now.tilted(tilt)
    higher, turned = now.loss > best.loss, np.sign(now.slope) * np.sign(best.slope) < 0
    bracketed_now = bracketed or higher or turned
    length = _next_length(best, other, now, bracketed, low, high)
    if higher:
        other = now
    else:
        best, other = now, best if turned else other
    if tilt:
        best, other = best.tilted(-tilt), other.tilted(-tilt)
    return best, other, length, bool(bracketed_now)


def _next_length(
    best: Trial, other: Trial, now: Trial, bracketed: bool, low: np.float64, high: np.float64
) -> np.float64:
    """The next step length (section 4 of the paper)."""
    towards = best.length - now.length
    secant = now.length + (now.slope / (now.slope - best.slope)) * towards
    if now.loss > best.loss:
        cubic = _cubic(best, now, best, now)
        chord = (best.loss - now.loss) / (now.length - best.length) + best.slope
        quadratic = best.length + ((best.slope / chord) / 2.0) * (now.length - best.length)
        nearer = abs(cubic - best.length) <= abs(quadratic - best.length)
        return cubic if nearer else cubic + (quadratic - cubic) / 2.0
    if np.sign(now.slope) * np.sign(best.slope) < 0:
        cubic = _cubic(now, best, best, now)
        return cubic if abs(cubic - now.length) > abs(secant - now.length) else secant
    end = high if now.length > best.length else low
    if abs(now.slope) < abs(best.slope):
        cubic = _cubic_beyond(best, now, end)
        nearer = abs(cubic - now.length) < abs(secant - now.length)
        if not bracketed:
            further = abs(cubic - now.length) > abs(secant - now.length)
            return np.clip(cubic if further else secant, low, high)
        limit = now.length + SHRINK * (other.length - now.length)
        inside = min if now.length > best.length else max
        return inside(limit, cubic if nearer else secant)
    return _cubic(now, other, other, now) if bracketed else end


def _cubic(a: Trial, b: Trial, first: Trial, second: Trial) -> np.float64:
    """The minimiser of the cubic through two trials, reckoned from a towards b; first, second: in the order of sums."""
    theta, gamma = _cubic_terms(first, second)
    gamma = -gamma if b.length < a.length else gamma
    r = ((gamma - a.slope) + theta) / (((gamma - a.slope) + gamma) + b.slope)
    return a.length + r * (b.length - a.length)


def _cubic_beyond(best: Trial, now: Trial, end: np.float64) -> np.float64:
    """The minimiser of the cubic beyond `now`, `end` where it has none there."""
    theta, gamma = _cubic_terms(best, now)
    gamma = -gamma if now.length > best.length else gamma
    r = ((gamma - now.slope) + theta) / ((gamma + (best.slope - now.slope)) + gamma)
    return now.length + r * (best.length - now.length) if r < 0 and gamma != 0 else end


def _cubic_terms(first: Trial, second: Trial) -> tuple[np.float64, np.float64]:
    theta = 3.0 * (first.loss - second.loss) / (second.length - first.length) + first.slope + second.slope
    scale = max(abs(theta), abs(first.slope), abs(second.slope))
    discriminant = (theta / scale) ** 2 - (first.slope / scale) * (second.slope / scale)
    return theta, scale * np.sqrt(max(np.float64(0.0), discriminant))
