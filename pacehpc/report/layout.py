"""How figures of report/ look: their style, margins and legends, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from pacehpc.replacing import replacing
from pacehpc.report.colours import COLOURS, Colours

_STYLE = {
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.titley": 1.0,  # where it is; matplotlib would measure all tick labels first
    "axes.linewidth": 0.7,
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.useoffset": False,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "legend.frameon": False,
    "figure.dpi": 200,
    "savefig.dpi": "figure",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "agg.path.chunksize": 10000,
}


@contextmanager
def styled() -> Iterator[None]:
    """The style of all figures."""
    with matplotlib.rc_context(_STYLE):
        yield


def save_figure(figure: Figure, path: Path) -> Path:
    """Written beside and renamed, so that a viewer never sees half a figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        if path.suffix == ".png":
            canvas = FigureCanvasAgg(figure)  # `savefig` draws everything twice, first for the layout
            canvas.draw()
            picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
            # half the time of the default level, for files as large
            picture.save(beside, format="png", compress_level=3, dpi=(figure.dpi, figure.dpi))
        else:
            figure.savefig(beside, format=path.suffix[1:])
    return path


def lay_out(
    figure: Figure,
    title: str = "",
    colours: Colours | None = None,
    left: float = 0.75,
    top: float = 0.3,
    between: float = 0.12,
) -> None:
    """Title, legend of the groups below the panels, and margins that ticks and labels fit into.

    Matplotlib's layouts would measure all texts twice, which takes longer than to draw the figure.

    Args:
        figure: with its panels.
        title: of the figure.
        colours: of the groups, where there are some.
        left, top: inches beside and above the panels.
        between: inches between panels that stand side by side.
    """
    width, height = figure.get_size_inches()
    bottom, right = 0.52, 0.15
    # colour bars stand beside panels with axes of their own, or beside the last one
    if any(axes.get_label() == "<colorbar>" for axes in figure.axes):
        right, between = 0.65, 1.3 if between > 0.5 else between
    if title:
        figure.text(0.5, 1 - 0.06 / height, title, ha="center", va="top", fontsize=9)
    if colours is not None:
        marks = [
            Line2D([], [], ls="", marker="o", ms=4, color=colour, label=name)
            for name, colour in zip(colours.names, COLOURS, strict=False)
        ]
        columns = min(5, len(marks))
        figure.legend(handles=marks, loc="lower center", ncols=columns, fontsize=7)
        bottom += 0.1 + 0.15 * -(-len(marks) // columns)
    n = figure.axes[0].get_subplotspec().get_topmost_subplotspec().get_gridspec().ncols
    panel = (width - left - right - (n - 1) * between) / n
    figure.subplots_adjust(
        left / width, bottom / height, 1 - right / width, 1 - top / height, wspace=between / panel, hspace=0.06
    )


def text_width(figure: Figure, texts: Sequence[Text]) -> float:
    """Inches of the widest text, at most half of the figure."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    width = max(text.get_window_extent(renderer).width for text in texts) / figure.dpi
    return min(width, figure.get_size_inches()[0] / 2)
