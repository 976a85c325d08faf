"""`pacehpc select`, `pace_select`: the structures of a pool that would teach a potential most."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from pacehpc.active.active_set import ActiveSet
from pacehpc.active.choose import Limits
from pacehpc.active.data_rows import DataRows
from pacehpc.active.select import select_structures
from pacehpc.active.structure_files import read_structures, write_structures
from pacehpc.errors import PacehpcError
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential
from pacehpc.utilities.activeset import add_search_options, row_memory, search_limits
from pacehpc.utilities.command import ready_backend, run_on_ranks

log = logging.getLogger("pacehpc")


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="pacehpc select",
        description="Select structures by the active set of a pool: those with the most chosen atoms come first. With "
        "mpirun the pool is distributed over the ranks; the selection is the same on any number.",
    )
    add = p.add_argument
    add("dataset", nargs="+", help="pool: data files, LAMMPS dumps, POSCAR files or folders")
    add("-p", "--potential", required=True, help="potential file (.yaml or .yace)")
    add("-a", "--active-set", dest="active_set", metavar="ASI", help="active set of the data that are known already")
    add("-e", "--elements", help='elements of the types 1, 2, … of LAMMPS dumps, such as "Ni Nb"')
    add("-n", "-m", "--max-structures", dest="most", type=int, metavar="N", help="at most so many structures")
    add("-o", "--output", default="selected.pkl.gz", help="data file, or FOLDER/POSCAR; default: %(default)s")
    add_search_options(lambda *names, **rest: add(*("-mem" if name == "-m" else name for name in names), **rest), 100)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    return run_on_ranks(_select, parser().parse_args(argv))


def _checked_limits(arguments: argparse.Namespace) -> Limits:
    if arguments.most is not None and arguments.most < 1:
        raise PacehpcError(f"-m {arguments.most}: at least one structure is needed.")
    return search_limits(arguments)


def _select(arguments: argparse.Namespace, ranks: Ranks) -> int:
    limits = ranks.share(lambda: _checked_limits(arguments))
    potential = ranks.share(lambda: Potential.load(arguments.potential))
    active_set = None
    if arguments.active_set:
        active_set = ranks.share(lambda: ActiveSet.load(arguments.active_set, potential))
    types = (arguments.elements or "").replace(",", " ").split()
    pool = ranks.share(lambda: read_structures(arguments.dataset, types))
    full = active_set is not None and active_set.full
    backend = ready_backend(arguments.backend, potential, ranks, rows=True)
    rows = DataRows(pool.atoms, potential, backend, ranks.rank, ranks.size, full, row_memory(arguments, ranks))
    order, counts, chosen = select_structures(rows, active_set, ranks, limits, arguments.most)

    def write() -> None:
        for element, choice in chosen.items():
            new = int((choice.atoms >= 0).sum())
            log.info("%s: %d of %d chosen rows are atoms of the pool", element, new, len(choice.atoms))
        if len(order) == 0:
            log.warning("The known active set covers the pool: no structure is selected, nothing is written")
            return
        for k, count in list(zip(order.tolist(), counts.tolist(), strict=True))[:10]:
            log.info("%s: %d atoms chosen", pool.origins[k], count)
        written = write_structures(pool, order.tolist(), arguments.output)
        log.info("%s of %d", written, len(pool.atoms))

    ranks.on_root(write)
    return 0
