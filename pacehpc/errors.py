"""The one exception for mistakes that a user can mend."""

from __future__ import annotations


class PacehpcError(Exception):
    """What is wrong, where (file, key, structure), and what to do; shown without a traceback."""
