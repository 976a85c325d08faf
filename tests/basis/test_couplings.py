"""Couplings: trees, terms over m, and which functions are independent, against numerical evaluation."""

import numpy as np
import pytest
from scipy.special import sph_harm_y
from scipy.stats import special_ortho_group

from pacehpc.basis import complete_couplings, couplings, independent_couplings, m_terms, merged_terms
from pacehpc.basis.couplings import coupling_tree
from pacehpc.errors import PacehpcError


def evaluate(ls, LS, moments):
    """B = Re Σ C Π_t A_t for moments: one (n_samples, 2 l + 1) array for each factor."""
    ms, values = m_terms(ls, LS)
    product = np.ones((len(moments[0]), len(ms)), dtype=complex)
    for t, moment in enumerate(moments):
        product *= moment[:, ms[:, t] + ls[t]]
    return (product @ values).real


def random_moments(rng, l, n_samples):
    """A_m with A_{-m} = (-1)^m conj(A_m), as sums of spherical harmonics have."""
    positive = rng.normal(size=(n_samples, l)) + 1j * rng.normal(size=(n_samples, l))
    negative = positive.conj() * (-1.0) ** np.arange(1, l + 1)
    return np.concatenate([negative[:, ::-1], rng.normal(size=(n_samples, 1)), positive], axis=1)


def test_tree():
    assert coupling_tree(2) == ((0, 1),)
    assert coupling_tree(3) == ((0, 1), (3, 2))
    assert coupling_tree(4) == ((0, 1), (2, 3), (4, 5))
    assert coupling_tree(5) == ((0, 1), (2, 3), (5, 6), (7, 4))
    assert coupling_tree(6) == ((0, 1), (2, 3), (4, 5), (6, 7), (9, 8))
    assert coupling_tree(7) == ((0, 1), (2, 3), (4, 5), (7, 8), (10, 9), (11, 6))


def test_couplings_are_all_and_in_order():
    assert couplings((0,)) == ((),)
    assert couplings((1,)) == ()
    assert couplings((2, 2)) == ((),)
    assert couplings((1, 2)) == ()
    assert couplings((1, 1, 2)) == ((2,),)
    assert couplings((1, 1, 1, 1)) == ((0, 0), (1, 1), (2, 2))
    assert couplings((1, 1, 1, 2, 1)) == ((0, 1, 1), (1, 1, 1), (1, 2, 1), (2, 1, 1), (2, 2, 1), (2, 3, 1))
    for ls in [(1, 2, 3, 2), (1, 2, 1, 3, 2, 1), (1, 1, 2, 1, 1, 1, 1)]:
        found = couplings(ls)
        assert list(found) == sorted(set(found))
        multiplicity = np.ones(1)
        for l in ls:  # number of ways to Σ m = M; L = 0 occurs n(0) - n(1) times
            multiplicity = np.convolve(multiplicity, np.ones(2 * l + 1))
        centre = len(multiplicity) // 2
        assert len(found) == multiplicity[centre] - multiplicity[centre + 1]


@pytest.mark.parametrize(
    ("ls", "LS", "expected"),
    [
        ((0,), (), ()),
        ((1,), (), None),
        ((2, 2), (), ()),
        ((1, 2), (), None),
        ((1, 1, 2), (), (2,)),
        ((1, 1, 2), (2,), (2,)),
        ((1, 1, 2), (1,), None),
        ((1, 1, 1, 1), (1,), (1, 1)),
        ((1, 1, 1, 1), (1, 2), None),
        ((1, 1, 1, 1), (3, 3), None),
        ((1, 1, 1, 1), (), None),
        ((1, 1, 1, 2, 1), (0, 1), (0, 1, 1)),
        ((1, 1, 1, 1, 1, 1), (1, 1, 2), (1, 1, 2, 2)),
        ((1, 1, 1), (1,), None),  # odd sum
        ((1, 1), (0,), None),  # too many
    ],
)
def test_complete_couplings(ls, LS, expected):
    assert complete_couplings(ls, LS) == expected


@pytest.mark.parametrize(
    ("ls", "LS"),
    [((3, 3), ()), ((1, 2, 3), (3,)), ((2, 1, 2, 3), (2, 2)), ((1, 2, 2, 2, 1), (3, 2, 1)),
     ((1, 2, 1, 1, 2, 3), (2, 1, 3, 3)), ((1, 1, 1, 2, 1, 1, 1), (1, 2, 2, 2, 1))],
)  # fmt: skip
def test_functions_are_rotationally_invariant(ls, LS):
    """With A from scipy's harmonics of a few vectors; the functions are not trivially zero."""
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(4, len(ls), 3))  # 4 neighbours of each factor's own kind

    def value(rotation):
        moments = []
        for t, l in enumerate(ls):
            x, y, z = rotation @ vectors[:, t].T
            theta, phi = np.arccos(z / np.sqrt(x * x + y * y + z * z)), np.arctan2(y, x)
            moments.append(np.array([[sph_harm_y(l, m, theta, phi).sum() for m in range(-l, l + 1)]]))
        return evaluate(ls, LS, moments)[0]

    first = value(np.eye(3))
    assert abs(first) > 1e-6
    assert value(special_ortho_group.rvs(3, random_state=3)) == pytest.approx(first, rel=1e-11, abs=1e-14)
    assert value(-np.eye(3)) == pytest.approx(first, rel=1e-11, abs=1e-14)


def test_terms_are_half_of_all_and_normalised():
    ms, values = m_terms((2, 1, 2, 3), (2, 2))
    assert (ms.sum(axis=1) == 0).all()
    first = np.array([row[np.flatnonzero(row)[0]] if row.any() else 1 for row in ms])
    assert (first > 0).all()
    doubled = ms.any(axis=1)
    assert (values[~doubled] ** 2).sum() + 2 * ((values[doubled] / 2) ** 2).sum() == pytest.approx(1, abs=1e-14)
    assert m_terms((0,), ())[0].tolist() == [[0]] and m_terms((0,), ())[1].tolist() == [1.0]


def test_merged_terms_give_the_same_value():
    """Like factors merged, factors brought into order: the same number from fewer terms."""
    rng = np.random.default_rng(1)
    a, b = random_moments(rng, 2, 5), random_moments(rng, 1, 5)
    ls, LS = (2, 1, 2, 1), (2, 2)
    expected = evaluate(ls, LS, [a, b, a, b])
    ms, values = merged_terms(((ls, LS, (1, 3, 0, 2)),), (0, 0, 2, 2))
    merged = np.prod([b[:, ms[:, 0] + 1], b[:, ms[:, 1] + 1], a[:, ms[:, 2] + 2], a[:, ms[:, 3] + 2]], axis=0)
    assert len(ms) < len(m_terms(ls, LS)[0])
    assert (merged @ values[0]).real == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    ("ls", "groups"),
    [
        ((2, 2, 2), (0, 0, 0)),
        ((1, 1, 3, 3), (0, 0, 0, 0)),
        ((4, 4, 4, 4), (0, 0, 0, 0)),
        ((5, 6, 6, 7), (0, 0, 0, 0)),
        ((3, 3, 3, 3), (0, 0, 2, 2)),
        ((2, 2, 2, 3, 3), (0, 0, 0, 0, 0)),
        ((1, 2, 2, 2, 3), (0, 1, 1, 1, 4)),
        ((1, 1, 1, 1, 2, 2), (0, 0, 0, 0, 4, 4)),
        ((2, 2, 2, 2, 2, 2), (0, 0, 0, 3, 3, 3)),
        ((1, 1, 1, 1, 1, 1, 2), (0, 0, 0, 0, 0, 0, 0)),
        ((1, 1, 1, 1, 1, 1, 1, 1), (0, 0, 0, 0, 4, 4, 4, 4)),
        ((1, 1, 1), (0, 0, 0)),  # nothing: odd sum
    ],
)
def test_independent_functions_numerically(ls, groups):
    """The kept functions are independent, span all others, and are the first that do so."""
    rng = np.random.default_rng(len(ls))
    candidates = couplings(ls) if sum(ls) % 2 == 0 else ()
    n_samples = 2 * len(candidates) + 10
    like = {(g, l): random_moments(rng, l, n_samples) for g, l in zip(groups, ls, strict=True)}
    moments = [like[g, l] for g, l in zip(groups, ls, strict=True)]
    kept = []
    columns = np.zeros((n_samples, 0))
    for LS in candidates:
        values = evaluate(ls, LS, moments)
        norm = np.sqrt((values**2).mean()) / np.prod([np.sqrt((np.abs(m) ** 2).mean()) for m in moments])
        if norm < 1e-9:
            continue
        extended = np.column_stack([columns, values / np.linalg.norm(values)])
        singular = np.linalg.svd(extended, compute_uv=False)
        if singular[-1] > 1e-7:
            kept.append(LS)
            columns = extended
    assert independent_couplings(ls, groups) == tuple(kept)


def test_too_large_functions_are_refused():
    with pytest.raises(PacehpcError, match="lower lmax_by_orders"):
        m_terms((10,) * 8, (0,) * 6)
    with pytest.raises(PacehpcError, match="lower lmax_by_orders"):
        independent_couplings((4,) * 9 + (4,), (0,) * 10)
