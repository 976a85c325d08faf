"""`pacehpc report`: the figures and the page of a finished fit, made again from its files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pacehpc.report.drawing import Drawing
from pacehpc.report.folder import read_curves, read_predictions
from pacehpc.report.jobs import curve_job, figure_jobs
from pacehpc.report.summary import read_summary
from pacehpc.utilities.command import command


@command
def main(argv: Sequence[str] | None = None) -> int:
    """`pacehpc report [FOLDER]`."""
    parser = argparse.ArgumentParser(
        prog="pacehpc report", description="Make the page and the figures of a finished fit again, from its files."
    )
    parser.add_argument("folder", nargs="?", default=".", help="of the fit; default: this one")
    parser.add_argument("--imagetype", default="png", choices=("png", "pdf", "svg"), help="default: %(default)s")
    parser.add_argument("--page", action="store_true", help="the page alone")
    arguments = parser.parse_args(argv)
    folder = Path(arguments.folder)
    if not arguments.page:
        data, into = read_predictions(folder, read_summary(folder)), str(folder / "report")
        jobs = [job for one in data for job in figure_jobs(into, one, arguments.imagetype)]
        drawing = Drawing()
        drawing.draw([*jobs, curve_job(into, read_curves(folder), arguments.imagetype)])
        drawing.wait()
    print(remake_page(folder))
    return 0


def remake_page(folder: Path) -> Path:
    """Write the page of a finished fit again; its path.

    Raises:
        PacehpcError: no finished fit, or one without predictions.
    """
    from pacehpc.report.page.fit_page import write_page  # loads a library that few commands need

    summary = read_summary(folder)
    return write_page(folder, summary, read_predictions(folder, summary), read_curves(folder))
