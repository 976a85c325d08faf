"""`pacehpc uq`: calibrated uncertainties of a potential: build them, predict with them, sample committees."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import pacehpc
from pacehpc.backends.interface import LossWeights
from pacehpc.dataset import Dataset
from pacehpc.dataset.groups import group_labels
from pacehpc.dataset.loading import NEEDED, read_raw, referenced, weighted
from pacehpc.errors import PacehpcError
from pacehpc.objective import agreed_backend
from pacehpc.parallel import Ranks
from pacehpc.potential import Potential, export_yace
from pacehpc.potential.reference import stored_reference
from pacehpc.shard import shard
from pacehpc.uncertainty.build import build
from pacehpc.uncertainty.calibration import KINDS
from pacehpc.uncertainty.committee import PRIOR, Committee
from pacehpc.uncertainty.model import Uncertainty, uq_name
from pacehpc.utilities import predict
from pacehpc.utilities.command import run_on_ranks

log = logging.getLogger("pacehpc")


def parser() -> argparse.ArgumentParser:
    """All options."""
    p = argparse.ArgumentParser(
        prog="pacehpc uq",
        description="Calibrated uncertainties of energies and forces. With mpirun the structures are distributed over "
        "the ranks; results are the same on any number. `fit: {uncertainty: true}` builds them at the end of a fit.",
    )
    tasks = p.add_subparsers(dest="task", required=True, metavar="build | predict | sample")
    build = tasks.add_parser("build", help="make NAME.uq.npz of a potential from the data that it was fitted to")
    add = build.add_argument
    add("potential", help="potential file (.yaml)")
    add("-d", "--dataset", nargs="+", required=True, metavar="FILE", help="training data: fitting_data_info.pckl.gzip")
    add("--kappa", type=float, help="fit.loss.kappa of the fit; default: what the potential's file says")
    add("-o", "--output", help="file to write; default: the potential's name with .uq.npz")
    add("--backend", default="auto", help="auto, cpu, cuda or reference; default: %(default)s")
    tasks.add_parser(
        "predict", help="pacehpc predict with standard deviations", parents=[predict.parser()], add_help=False
    )
    sample = tasks.add_parser("sample", help="write a committee of potentials (.yaml, and .yace for LAMMPS)")
    add = sample.add_argument
    add("potential", help="potential file (.yaml)")
    add("-n", "--members", type=int, default=16, metavar="N", help="potentials to write; default: %(default)s")
    add("--uq", metavar="FILE", help="its file of uncertainties; default: the potential's name with .uq.npz")
    add("--scale", choices=KINDS, default="forces", help="errors that scale the spread; default: %(default)s")
    add(
        "--prior", type=float, default=PRIOR, metavar="P",
        help="standard deviation that coefficients may have, over their root mean square; default: %(default)s",
    )  # fmt: skip
    add("--seed", type=int, default=0, help="of the random numbers; default: %(default)s")
    add("-o", "--output", metavar="FOLDER", help="default: the potential's name with _committee")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of the command."""
    arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
    if arguments.task == "predict":
        arguments.uq = arguments.uq or uq_name(arguments.potential)
        return predict.run(arguments)
    return run_on_ranks(_sample if arguments.task == "sample" else _build, arguments)


def _build(arguments: argparse.Namespace, ranks: Ranks) -> int:
    potential = ranks.share(lambda: Potential.load(arguments.potential))
    loss = ranks.share(lambda: _loss(arguments, potential))
    data = ranks.share(lambda: _data(arguments.dataset, potential, loss))
    backend = agreed_backend(arguments.backend, ranks)
    labels = group_labels(data.names, data.info)
    origin = {"pacehpc": pacehpc.__version__, "data_sha256": data.sha256}
    found = build(potential, shard(data, potential, ranks), ranks, backend, loss, labels, origin=origin)
    name = arguments.output or uq_name(arguments.potential)
    ranks.on_root(lambda: (found.save(name), log.info("%s written", name)))
    return 0


def _sample(arguments: argparse.Namespace, ranks: Ranks) -> int:
    ranks.on_root(lambda: _write_members(arguments))
    return 0


def _write_members(arguments: argparse.Namespace) -> None:
    for option, fine, needed in (
        ("-n", arguments.members >= 1, "1 or larger"),
        ("--seed", arguments.seed >= 0, "0 or larger"),
        ("--prior", arguments.prior > 0, "larger than 0"),
    ):
        if not fine:
            raise PacehpcError(f"{option}: a number {needed} is needed.")
    potential = Potential.load(arguments.potential)
    found = Uncertainty.load(arguments.uq or uq_name(arguments.potential), potential, arguments.potential)
    folder = Path(arguments.output or f"{Path(arguments.potential).with_suffix('')}_committee")
    if folder.exists() and any(folder.iterdir()):
        raise PacehpcError(f"{folder}: is not empty; delete it, or name another folder with -o.")
    committee = Committee.of(found, potential, arguments.scale, arguments.prior)
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(arguments.members):
        member = committee.member(k, arguments.seed)
        member.save(folder / f"member_{k + 1:03d}.yaml")
        export_yace(member, folder / f"member_{k + 1:03d}.yace")
    log.info(
        "%s: %d potentials written, as .yaml and .yace. On the data of the fit their spread is %.2f of the calibrated "
        "standard deviation of %s: multiply it by %.2f",
        folder, arguments.members, committee.share, arguments.scale, 1 / committee.share,
    )  # fmt: skip


def _loss(arguments: argparse.Namespace, potential: Potential) -> LossWeights:
    """The weights of forces and stresses that the potential was fitted with."""
    try:
        stored = json.loads(potential.metadata.get("loss_weights", "{}"))
        kappa, stress = stored.get("kappa"), float(stored.get("stress", 0.0))
    except (ValueError, AttributeError, TypeError):
        kappa, stress = None, 0.0
    kappa = arguments.kappa if arguments.kappa is not None else kappa
    if kappa is None:
        raise PacehpcError(
            f"{arguments.potential}: does not say which kappa it was fitted with; give that of its input with --kappa."
        )
    if not 0 <= float(kappa) <= 1:
        raise PacehpcError(f"--kappa {kappa}: a number from 0 to 1 is needed.")
    return LossWeights(float(kappa), stress)


def _data(files: Sequence[str], potential: Potential, loss: LossWeights) -> Dataset:
    """The structures with the reference energies of the potential, where the data have none, and their weights."""
    data = read_raw(files, potential.elements)
    missing = not np.isfinite(data.energy_corrected).all()
    data = referenced(data, stored_reference(potential) if missing else None)
    used = {"energy": loss.kappa < 1, "forces": loss.kappa > 0, "stress": loss.stress > 0}
    return weighted(data, needed=[name for name in NEEDED if used[name]])
