from __future__ import annotations

import logging
from itertools import pairwise

import numpy as np
import pytest

from pacehpc.errors import PacehpcError
from pacehpc.fit.stopping import CallbackFailed, EarlyStop, call_all, load_callbacks


def stops_at(losses, threshold, patience, every=1):
    stop = EarlyStop(threshold, patience)
    for k, loss in enumerate(losses):
        if stop.update(k * every, loss):
            return k * every
    return None


def by_definition(losses, threshold, patience, every=1):
    """d_k = (L_k - L_{k-1}) / L_{k-1} per iteration, all of the last `patience` above -threshold."""
    d = {k * every: (b - a) / a / every for k, (a, b) in enumerate(pairwise(losses), start=1)}
    for iteration in d:
        last = [v for k, v in d.items() if iteration - patience < k <= iteration]
        if iteration >= patience and all(v > -threshold for v in last):
            return iteration
    return None


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("patience", [1, 10, 20])
def test_stops_by_the_definition(every, patience):
    losses = [0.7**k + 0.1 for k in range(60)]
    losses[25] = losses[24] * 0.95  # a late improvement, then flat
    losses[26:] = [losses[25]] * 34
    for threshold in (1e-4, 1e-2):
        assert stops_at(losses, threshold, patience, every) == by_definition(losses, threshold, patience, every)
    assert stops_at([0.9**k for k in range(60)], 1e-2, patience, 1) is None


@pytest.mark.parametrize(
    ("result", "stops"), [(True, True), (np.True_, True), (np.False_, False), (None, False), (1, False)]
)
def test_what_a_callback_returns(result, stops):
    def after_iteration(**_):
        return result

    assert call_all([after_iteration]) is stops


def test_a_rising_loss_is_no_improvement():
    assert stops_at([1.0, 1.1, 1.2, 1.3], 1e-3, 3) == 3


def test_callbacks_are_importable_from_the_working_directory(tmp_path, monkeypatch, caplog):
    (tmp_path / "checks_of_a_user.py").write_text(
        "seen = []\n"
        "def after(basis_config, current_fit_iteration, **others):\n"
        "    seen.append((basis_config, current_fit_iteration, sorted(others)))\n"
        "    return current_fit_iteration == 2\n"
        "def bad(**others):\n"
        "    raise RuntimeError('plot window closed')\n"
    )
    monkeypatch.chdir(tmp_path)
    after, bad = load_callbacks(["checks_of_a_user.after", "checks_of_a_user.bad"])
    keywords = {"basis_config": "P", "current_fit_cycle": 0, "current_ladder_step": 0}
    assert call_all([after], current_fit_iteration=1, **keywords) is False
    assert call_all([after], current_fit_iteration=2, **keywords) is True
    with caplog.at_level(logging.ERROR, logger="pacehpc"), pytest.raises(CallbackFailed):
        call_all([bad], current_fit_iteration=1, **keywords)
    assert "plot window closed" in caplog.text
    import checks_of_a_user

    assert checks_of_a_user.seen[0] == ("P", 1, ["current_fit_cycle", "current_ladder_step"])
    for name in ("checks_of_a_user.missing", "no_such_module_of_a_user.f"):
        with pytest.raises(PacehpcError, match=r"fit\.callbacks"):
            load_callbacks([name])
