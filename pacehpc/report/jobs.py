"""Which figures a fit gets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pacehpc.report.drawing import Job
from pacehpc.report.groups import group_rows
from pacehpc.report.predictions import Compared


def figure_jobs(folder: str, data: Compared, image_type: str) -> list[Job]:
    """The figures of one data set, to draw into `folder`."""
    shown, which = data.known, data.which
    jobs: list[Job] = [
        ("save_predictions", (folder, shown, which, image_type)),
        ("save_distributions", (folder, shown.energy, shown.forces, which, image_type)),
    ]
    if data.has_groups:
        rows = group_rows(data.errors)
        names, *rmse = ([row[key] for row in rows] for key in ("group", "rmse_epa", "rmse_f_comp"))
        jobs.append(("save_groups", (folder, names, *rmse, which, image_type, len(data))))
    if (known := data.known_stress).any():
        stresses = data.stress[known], data.stress_pred[known]
        jobs.append(("save_stress", (folder, *stresses, which, image_type, data.groups[known])))
    return jobs


def curve_job(folder: str, tables: Mapping[str, Mapping[str, np.ndarray]], image_type: str) -> Job:
    """The figure of losses and errors over all iterations; tables: of metrics.txt (train) and test_metrics.txt."""
    return "save_learning_curve", (folder, tables["train"], tables["test"] or None, image_type)
