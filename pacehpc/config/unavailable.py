"""Keys of the input that the program does not serve yet: path -> what is missing. Using one is an error."""

from __future__ import annotations

_QUERY = "querying a database of structures; give the data by data.filename"

UNAVAILABLE: dict[str, str] = {
    "data.database": _QUERY,
    "data.config.element": _QUERY,
    "data.config.calculator": _QUERY,
    "data.config.ref_energy": _QUERY,
    "data.config.query_limit": _QUERY,
    "data.config.cache_ref_df": _QUERY,
}
