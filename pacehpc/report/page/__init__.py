"""report/index.html: one file that shows a fit, opens without a network, and needs nothing beside it."""

from __future__ import annotations

from pacehpc.report.page.fit_page import write_page

__all__ = ["write_page"]
