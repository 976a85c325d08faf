"""`pacehpc compile`: fill the kernel cache ahead of a fit, for instance on a login node that has the compiler."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence

import numpy as np

from pacehpc.backends import prepare_kernels, prepare_row_kernels, resolve
from pacehpc.backends.interface import LossWeights
from pacehpc.backends.program import prepare_program
from pacehpc.config import load_settings
from pacehpc.config.models import Settings
from pacehpc.fit.repulsion import with_zbl
from pacehpc.potential import Potential, build_potential, ladder_start, next_ladder_potential
from pacehpc.utilities.command import command


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Compile the kernels for the potentials of an input, those of all ladder steps included."""
    parser = argparse.ArgumentParser(
        prog="pacehpc compile", description="Compile the kernels that a fit will need into the cache ($PACEHPC_CACHE)."
    )
    parser.add_argument("input", nargs="?", default="input.yaml", help="input file; default: %(default)s")
    parser.add_argument("-b", "--backend", help="cpu or cuda; default: that of the input")
    arguments = parser.parse_args(argv)
    settings = load_settings(arguments.input, {"backend.evaluator": arguments.backend}, needs=("potential",))
    backend = resolve(settings.backend.evaluator)
    losses = [LossWeights(stress=stress) for stress in sorted({stage.loss.stress for stage in settings.fit.stages})]
    start, steps = time.perf_counter(), 0
    for potential in potentials(settings):
        for loss in losses:
            prepare_kernels(backend, potential, loss)
        for stage in settings.fit.stages:
            if stage.optimizer == "GN-BFGS":
                prepare_row_kernels(backend, potential, stage.loss.stress > 0)
        # what may be written at the end, which predicts stresses where the data have them
        final = potential
        if settings.fit.repulsion == "auto":
            final = with_zbl(potential, {})
            prepare_kernels(backend, final, losses[-1])
        prepare_kernels(backend, final, LossWeights(), True)
        if settings.fit.uncertainty:  # rows of its matrix, and those of standard deviations
            for stress in sorted({losses[-1].stress > 0, False}):
                prepare_row_kernels(backend, final, stress)
        steps += 1
    if backend == "cpu":
        prepare_program(final)
    print(f"Kernels of {steps} potential{'s' if steps > 1 else ''} for {backend}: {time.perf_counter() - start:.1f} s")
    return 0


def potentials(settings: Settings) -> Iterator[Potential]:
    """What the fit of these settings evaluates: the potential of each ladder step, or the one potential."""
    target = build_potential(settings.potential, rng=np.random.default_rng(settings.seed))
    if settings.fit.ladder_step is None:
        yield target
        return
    potential, steps = ladder_start(settings.potential), 0
    while (
        potential := next_ladder_potential(potential, target, settings.fit.ladder_step, settings.fit.ladder_type)
    ) is not None:
        yield potential
        steps += 1
    if steps == 0:
        yield target
