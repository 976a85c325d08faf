"""After the minimisations: the potential on disk, its errors, predictions and figures."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping

from pacehpc.backends.interface import LossWeights
from pacehpc.config.models import Fit, Settings
from pacehpc.dataset.groups import common_labels
from pacehpc.fit import outputs
from pacehpc.fit.data import nearest_distances
from pacehpc.fit.plan import Plan, Tasks
from pacehpc.fit.record import Seconds
from pacehpc.fit.resources import make_objective
from pacehpc.fit.summarise import Course, summarise
from pacehpc.fit.uncertainties import Spread, write_uncertainty
from pacehpc.objective import Objective
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential
from pacehpc.report import tables
from pacehpc.report.drawing import Drawing
from pacehpc.report.jobs import curve_job, figure_jobs
from pacehpc.report.predictions import Compared
from pacehpc.report.summary import FitSummary
from pacehpc.shard import Shard

log = logging.getLogger("pacehpc")


def finish(
    settings: Settings,
    fit: Fit,
    ranks: Ranks,
    tasks: Tasks,
    plan: Plan | None,
    shards: Mapping[str, Shard],
    potential: Potential,
    course: Course,
    seconds: Seconds,
) -> Drawing | None:
    """Write the potential, read it again, and compute the final errors and predictions with what the file holds.

    Args:
        settings, tasks: of the run.
        fit: settings of its last stage, whose loss is that of the final errors.
        ranks: all of them take part.
        plan: on the root.
        shards: this rank's structures.
        potential: the fitted one; without a fit, the input's.
        course: how the fit went; on the root.
        seconds: time by what it was spent on.

    Returns:
        The drawing of the figures, to be waited for; on the root, where there are any.
    """
    name = tasks.output if tasks.fit else "target_potential.yaml"
    drawing = Drawing(page=tasks.fit) if ranks.root and tasks.predict else None  # it loads while errors are computed
    with seconds.spent_on("report"):
        potential = ranks.share(lambda: _written(potential, plan, tasks, name))
    with seconds.spent_on("compile"):
        with_stress = tasks.predict and any(shard.structures.stress is not None for shard in shards.values())
        with_stress = ranks.broadcast(with_stress)
        objective = make_objective(
            fit, settings.backend, ranks, potential, shards, with_stress,
            profile=tasks.profile, refuse=not tasks.fit,
        )  # fmt: skip
    metrics, predictions = {}, {}
    if ranks.root:
        metrics["train"] = objective.evaluate(objective.x)[2]
        if "test" in shards:
            metrics["test"] = objective.evaluate_test(objective.x)
        if tasks.predict:
            predictions = {which: objective.predict(objective.x, which) for which in shards}
        if tasks.profile and not tasks.fit:
            outputs.log_stages(objective)
        objective.close()
    else:
        objective.serve()
    spreads: dict[str, Spread] = {}
    if tasks.fit and settings.fit.uncertainty:
        with seconds.spent_on("uncertainty"):
            spreads = write_uncertainty(
                name, potential, plan, shards, ranks, settings.backend.evaluator,
                LossWeights(objective.kappa, fit.loss.stress), objective.trainable, tasks.predict,
            )  # fmt: skip
    distances = {which: nearest_distances(shard, potential, ranks) for which, shard in shards.items() if tasks.predict}

    def report() -> None:
        with seconds.spent_on("report"):
            if tasks.fit:
                _add_errors(potential, metrics, name, objective)
            labels = dict(zip(plan.data, common_labels([(d.names, d.info) for d in plan.data.values()]), strict=True))
            compared, predicted = [], {}
            for which, prediction in predictions.items():
                name_of_data = plan.name(which)
                data, groups = plan.data[name_of_data], labels[name_of_data]
                shown, predicted[name_of_data] = outputs.save_tables(
                    data, name_of_data, groups, prediction, distances[which], spreads.get(which)
                )
                compared.append(shown)
        summary = None
        if tasks.fit:
            summary = summarise(settings, course, objective, plan.data, metrics, seconds, name)
            summary.write()
        if drawing is not None:
            _draw(drawing, compared, summary, settings.backend.imagetype)
        with seconds.spent_on("report"):
            # while the figures are drawn: pandas takes 0.2 s to import
            for name_of_data, columns in predicted.items():
                outputs.save_data(plan.data[name_of_data], f"{name_of_data}_pred", **columns)
            outputs.save_data_of_fit(plan.data)
        _log_final(objective, course.iterations, metrics, name, tasks.fit)

    ranks.on_root(report)
    return drawing


def _written(potential: Potential, plan: Plan, tasks: Tasks, name: str) -> Potential:
    """The potential as its file holds it; of a fit it is written first."""
    if tasks.fit:
        potential.metadata.update(plan.metadata)
        potential.save(name)
    return Potential.load(name)


def _draw(drawing: Drawing, compared: list[Compared], summary: FitSummary | None, image_type: str) -> None:
    """Start drawing the figures, and of a fit the page."""
    jobs = [job for data in compared for job in figure_jobs("report", data, image_type)]
    if summary is None:
        drawing.draw(jobs)
        return
    curves = {"train": tables.read_table("metrics.txt"), "test": tables.read_table("test_metrics.txt")}
    drawing.draw([*jobs, curve_job("report", curves, image_type)], (".", summary, compared, curves))


def _add_errors(
    potential: Potential, metrics: Mapping[str, Mapping[str, float]], name: str, objective: Objective
) -> None:
    weights = {"kappa": objective.kappa, "stress": objective.loss["stress"]}
    potential.metadata["loss_weights"] = json.dumps(weights)
    for which, prefix in (("train", "final_"), ("test", "final_test_")):
        if which in metrics:
            potential.metadata.update({f"{prefix}{key}": repr(metrics[which][key]) for key in outputs.FINAL_ERRORS})
    potential.save(name)


def _log_final(
    objective: Objective, iteration: int, metrics: Mapping[str, Mapping[str, float]], name: str, fitted: bool
) -> None:
    outputs.log_final(objective, iteration, metrics["train"], metrics.get("test"), name)
    if fitted:
        log.info("Fitted potential: %s", os.path.abspath(name))
