"""What a difference between two starts means."""

from __future__ import annotations

import pytest

from pacehpc.checkpoint.compatibility import (
    ANOTHER_FIT,
    ANOTHER_SHAPE,
    HARMLESS,
    OTHER_KERNELS,
    ROUNDING,
    content_hash,
    differences,
)


def meanings(before: dict, now: dict) -> dict[str, str]:
    return {d.name: d.meaning for d in differences(before, now)}


@pytest.mark.parametrize(("kernels", "meaning"), [("cpu", HARMLESS), ("cuda", HARMLESS), ("reference", ROUNDING)])
def test_ranks_matter_where_sums_depend_on_them(kernels, meaning):
    before, now = {"backend": kernels, "ranks": 2}, {"backend": kernels, "ranks": 4}
    assert meanings(before, now) == {"ranks": meaning}


def test_another_backend_and_other_ranks():
    before, now = {"backend": "cpu", "ranks": 2}, {"backend": "cuda", "ranks": 4}
    assert meanings(before, now) == {"backend": OTHER_KERNELS, "ranks": ROUNDING}


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("settings.backend.display_step", HARMLESS),
        ("settings.metadata.comment", HARMLESS),
        ("settings.fit.maxiter", ANOTHER_FIT),
        ("settings.seed", ANOTHER_FIT),
        ("data", ANOTHER_FIT),
        ("settings.potential.bonds.ALL.rcut", ANOTHER_SHAPE),
        ("settings.potential.metadata.comment", HARMLESS),
        ("settings.fit.ladder_step", ANOTHER_SHAPE),
        ("versions.openblas of scipy", ROUNDING),
        ("processors", ROUNDING),
    ],
)
def test_the_longest_name_counts(name, meaning):
    def nested(value: int) -> dict:
        body = value
        for part in reversed(name.split(".")):
            body = {part: body}
        return body

    assert meanings(nested(1), nested(2)) == {name: meaning}
    assert meanings(nested(1), nested(1)) == {}


@pytest.mark.parametrize(("threshold", "meaning"), [(None, HARMLESS), (1e-3, ANOTHER_FIT)])
def test_display_step_says_when_an_early_stop_by_the_test_set_looks(threshold, meaning):
    def settings(step: int) -> dict:
        fit = {"min_relative_test_loss_per_iter": threshold}
        return {"settings": {"backend": {"display_step": step}, "fit": fit}}

    assert meanings(settings(4), settings(5)) == {"settings.backend.display_step": meaning}


def test_contents_count_and_names_do_not(tmp_path):
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    for path, text in ((one, "a"), (two, "a"), (other, "b")):
        path.write_text(text)
    assert content_hash([one, other]) == content_hash([two, other]) != content_hash([other, one])
    assert content_hash([]) == ""
