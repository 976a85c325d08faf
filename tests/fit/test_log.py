"""The log as programs that call pacemaker read it: entries by time stamp, blocks by their titles."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from pacehpc import parallel
from pacehpc.report.tables import read_table

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
RULE = 97 * "-"


def entries(text: str) -> list[tuple[str, str]]:
    """(letter, message) of each entry; an entry ends where the next time stamp begins."""
    found = re.split(rf"^({STAMP}) ([IWED]) - ", text, flags=re.MULTILINE)
    assert found[0] == ""
    for stamp in found[1::3]:
        datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f")
    return list(zip(found[2::3], found[3::3], strict=True))


def blocks(text: str) -> list[tuple[str, int, float, float]]:
    """(title, iteration, loss, energy RMSE in meV/atom) of each block of statistics."""
    found = []
    for letter, message in entries(text):
        first, *rest = message.split("\n")
        title = re.fullmatch(r"-{44}([^-]+)-{44}", rest[0]) if rest else None
        if title is None:
            continue
        assert letter == "I" and first == ""
        head = re.match(r"Iteration:  #(\d+)   Loss: +Total: (\S+) \(100%\)", rest[1])
        table = rest.index(RULE) + 1
        assert rest[table].split()[0] == "Energy/at," and rest[table + 4] == RULE
        rmse = re.match(r" +RMSE: +(\S+)", rest[table + 1])
        found.append((title[1], int(head[1]), float(head[2]), float(rmse[1])))
    return found


def test_a_fit_with_a_ladder_cycles_and_a_test_set(fit):
    _, folder = fit(
        fit__ladder_step=9, fit__fit_cycles=2, fit__noise_relative_sigma=1e-2, fit__maxiter=5,
        backend__display_step=3, data__test_size=0.2,
    )  # fmt: skip
    text = (folder / "log.txt").read_text()
    cycle = [("INIT STATS", 0), ("INIT TEST STATS", 0), ("FIT STATS", 3), ("TEST STATS", 3)]
    cycle += [("Cycle last iteration:", 5), ("TEST Cycle last iteration:", 5)]
    step = [*cycle, *cycle, *cycle[-2:]]
    found = blocks(text)
    n_steps = len(read_table(folder / "ladder_metrics.txt")["loss"])
    assert [block[:2] for block in found] == n_steps * step and n_steps >= 2

    tables = {
        name: read_table(folder / f"{name}.txt")
        for name in ("metrics", "test_metrics", "cycle_metrics", "test_cycle_metrics")
    }
    for table, titles in (
        ("metrics", ("INIT STATS", "FIT STATS")),
        ("test_metrics", ("INIT TEST STATS", "TEST STATS")),
    ):
        known = [(it, loss, 1e3 * rmse) for it, loss, rmse in zip(*_of(tables[table]), strict=True) if it < 5]
        assert [block[1:] for block in found if block[0] in titles] == [
            pytest.approx(k, rel=1e-4, abs=6e-3) for k in known
        ]
    ends = [block[1:] for block in found if block[0] == "Cycle last iteration:"]
    known = [(it, loss, 1e3 * rmse) for it, loss, rmse in zip(*_of(tables["cycle_metrics"]), strict=True)]
    for number in range(n_steps):  # after both cycles the better one again
        both = known[2 * number : 2 * number + 2]
        wanted = [*both, min(both, key=lambda row: row[1])]
        assert ends[3 * number : 3 * number + 3] == [pytest.approx(k, rel=1e-4, abs=6e-3) for k in wanted]

    messages = [message for _, message in entries(text)]
    saved = [m.strip() for m in messages if m.startswith("Intermediate potential saved in ")]
    assert saved == [f"Intermediate potential saved in interim_potential_ladder_step_{k}.yaml" for k in range(n_steps)]
    # one line per iteration that has no block
    shown = re.findall(
        r"^(Initial state:|Initial\(TEST\):|Iteration   )#(\d+) +\(\d+ evals\):  Loss: \d", "".join(messages), re.M
    )
    one = [("Initial state:", "0"), ("Initial(TEST):", "0"), *(("Iteration   ", str(n)) for n in (1, 2, 4, 5))]
    assert shown == 2 * n_steps * one
    # nothing else looks like a loss of an iteration
    assert len(re.findall(r"Loss: \d", text)) == len(shown)


def test_the_terminal_shows_the_same_entries(fit, capsys):
    _, folder = fit(fit__maxiter=1)
    parallel.setup_logging(parallel.Ranks())
    assert capsys.readouterr().out == (folder / "log.txt").read_text()


def _of(table):
    return table["iter_num"].astype(int), table["loss"], table["rmse_epa"]
