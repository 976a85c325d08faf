"""What is written during a fit: every iteration has its place, and writing costs little."""

from __future__ import annotations

import time

from pacehpc.fit.record import INTERIM_SHARE
from pacehpc.potential import Potential
from pacehpc.report.tables import read_table


def test_interim_potentials_take_a_hundredth_of_the_time(fit, monkeypatch):
    spent, pause = [], [1.0]
    save = Potential.save

    def slow(self, path):
        start = time.perf_counter()
        if "interim_potential_0" in str(path):
            time.sleep(pause[0])
        save(self, path)
        if "interim_potential_0" in str(path):
            spent.append(time.perf_counter() - start)

    monkeypatch.setattr(Potential, "save", slow)
    fit(fit__maxiter=30)
    assert len(spent) == 3  # at the start, after the first and the last iteration; a fit below 100 s allows no more
    spent.clear()
    pause[0] = 0.0
    monkeypatch.setattr("pacehpc.fit.record.INTERIM_SHARE", 1e9)
    fit(fit__maxiter=30)
    assert len(spent) == 32 and INTERIM_SHARE == 0.01


def test_tables_hold_the_last_iteration_of_each_cycle(fit):
    """Also where it is none of every display_step (4 here), and once."""
    _, folder = fit(fit__maxiter=6, fit__fit_cycles=2, fit__noise_absolute_sigma=1e-3, data__test_size=0.2)
    for name in ("metrics", "test_metrics"):
        table = read_table(folder / f"{name}.txt")
        assert table["iter_num"].tolist() == [0, 4, 6, 0, 4, 6]
    last, cycles = read_table(folder / "metrics.txt"), read_table(folder / "cycle_metrics.txt")
    assert last["loss"][[2, 5]].tolist() == cycles["loss"].tolist()
