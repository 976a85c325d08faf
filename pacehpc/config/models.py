"""The input file as typed settings: every key, its default, what it may hold and what it means.

docs/input.md is generated from these models, see `page.py`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from pacehpc.basis import KEYWORDS
from pacehpc.config import optimizers
from pacehpc.config.data_keys import Data, GroupWeights
from pacehpc.config.scan_keys import Scan
from pacehpc.potential.section import PotentialSection
from pacehpc.schema import kinds
from pacehpc.schema.kinds import KeyedError, choice, kind, shown, suggestion
from pacehpc.schema.section import Section, unused
from pacehpc.yamlio import dumps_yaml

# ----------------------------------------------------------------------------------------------------------- fit


def _kappa(value: Any) -> float | str:
    if value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"must be a number from 0 (energies only) to 1 (forces only), or auto, not {shown(value)}")
    return float(value)


Kappa = kind("number from 0 to 1, or auto", _kappa)


LossType = choice("square", "huber")


class Residual(Section):
    """How the errors of energies, or of forces, count in the loss: as squares, or by Huber's loss."""

    type: LossType = Field("square", description="square: r²; huber: r² up to delta, 2 delta |r| - delta² beyond")
    delta: kinds.Positive | None = Field(
        None, description="of huber: eV/atom for errors of energies per atom, eV/Å for lengths of errors of forces"
    )

    @model_validator(mode="after")
    def _delta(self) -> Residual:
        if self.type == "huber" and self.delta is None:
            raise KeyedError(("delta",), "is needed with type: huber")
        if self.type == "square" and self.delta is not None:
            raise KeyedError(("delta",), "has no meaning with type: square")
        return self


class Loss(Section):
    """Terms of the loss function."""

    kappa: Kappa = Field(
        0.0, description="weight of forces against energies: (1-kappa) E + kappa F; auto: from their variances"
    )
    L1_coeffs: kinds.NotNegative = Field(0.0, description="factor of Σ|c| over the function coefficients")
    L2_coeffs: kinds.NotNegative = Field(0.0, description="factor of Σc² over the function coefficients")
    w0_rad: kinds.NotNegative = Field(0.0, description="factor of the size of the radial functions")
    w1_rad: kinds.NotNegative = Field(0.0, description="factor of their first derivative")
    w2_rad: kinds.NotNegative = Field(0.0, description="factor of their second derivative")
    w_orth: kinds.NotNegative = Field(0.0, description="factor of their deviation from orthonormal coefficients")
    stress: kinds.NotNegative = Field(0.0, description="factor of the stress term")
    energy: Residual | None = Field(None, description="how errors of energies count; default: square")
    forces: Residual | None = Field(None, description="how errors of forces count; default: square")
    w_energy: Any = unused("number", "kappa weighs forces against energies")
    w_forces: Any = unused("number", "kappa weighs forces against energies")
    w_stress: Any = unused("number", "`stress` is the factor of the stress term")
    w1_coeffs: Any = unused("number", "L1_coeffs alone sets this term")
    w2_coeffs: Any = unused("number", "L2_coeffs alone sets this term")


StructureType = choice("all", "bulk", "cluster")


EnergyZero = choice("convex_hull", "cohesive")


def _all_or_number(value: Any) -> int | None:
    return None if value == -1 and not isinstance(value, bool) else kinds.checker(kinds.Count)(value)


NumberToSelect = kinds.kind("whole number, 1 or larger, or -1", _all_or_number, int)


class EnergyBasedWeighting(Section):
    """Selects structures and weights them by their energy above the convex hull."""

    type: Literal["EnergyBasedWeightingPolicy"] = Field(description="this policy")
    nfit: NumberToSelect | None = Field(None, description="number of structures to select; default, and -1: all")
    n_lower: kinds.CountOrZero | None = Field(None, description="number to select from the lower tier")
    n_upper: kinds.CountOrZero | None = Field(None, description="number to select from the upper tier")
    DElow: kinds.NotNegative = Field(1.0, description="upper end of the lower tier, eV per atom")
    DEup: kinds.Positive = Field(10.0, description="structures above are dropped, eV per atom")
    DE: kinds.Real = Field(1.0, description="shift in w ∝ (e + |DE|)⁻², eV per atom")
    DF: kinds.Real = Field(1.0, description="shift in w ∝ 1/(|F|² + |DF|), (eV/Å)²")
    wlow: kinds.Fraction | None = Field(None, description="sum of the weights of the lower tier")
    DFup: kinds.Positive | None = Field(None, description="structures with a larger force are dropped, eV/Å")
    reftype: StructureType = Field("all", description="bulk: periodic in three directions; cluster: not")
    energy: EnergyZero = Field("convex_hull", description="what energies are measured from")
    seed: kinds.CountOrZero | None = Field(None, description="of the random selection; default: `seed`")
    cutoff: Any = unused("number", "`cutoff` at top level is meant")

    @model_validator(mode="after")
    def _tiers(self) -> EnergyBasedWeighting:
        if self.DElow > self.DEup:
            raise KeyedError(("DElow",), f"must not be above DEup, {self.DEup} eV; is {self.DElow}")
        return self


class ExternalWeighting(Section):
    """Takes weights from a file."""

    type: Literal["ExternalWeightingPolicy"] = Field(description="this policy")
    filename: kinds.FileName = Field(
        description="pickled frame with the index of the data and columns w_energy and w_forces"
    )


def _ladder_step(value: Any) -> Any:
    what = "must be a whole number of functions, a fraction below 1, or a list of both such as [10, 0.02]"
    values = value if isinstance(value, list) else [value]
    if not 1 <= len(values) <= 2 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        raise ValueError(f"{what}, not {shown(value)}")
    numbers = sum(1 for v in values if 1 <= v < float("inf") and v == int(v))
    fractions = sum(1 for v in values if 0 < v < 1)
    if numbers + fractions != len(values) or numbers > 1 or fractions > 1:
        raise ValueError(f"{what}, not {shown(value)}")
    cleaned = sorted((int(v) if v >= 1 else float(v) for v in values), reverse=True)
    return cleaned if isinstance(value, list) else cleaned[0]


_PARTS = ("func", "radial", "all")


def _parts(value: Any, path: tuple) -> list[str]:
    """func, radial, all, [func, radial], or {func, radial} (a YAML set of keys without values)."""
    parts = list(value) if isinstance(value, list | dict) else [value]
    for part in parts:
        if part not in _PARTS:
            raise KeyedError(path, f"must be func, radial, all or a list of them, not {shown(part)}")
    return parts


def _trainable(value: Any) -> Any:
    def block(name: Any, path: tuple, extra: tuple[str, ...]) -> Any:
        if name in KEYWORDS or name in extra:
            return name
        elements = kinds.split_elements(name)
        if elements is None:
            names = [*KEYWORDS, *extra]
            raise KeyedError(
                path, f"{shown(name)} names no parameters; write elements such as AlNi; {suggestion(name, names)}"
            )
        return " ".join(elements)

    if isinstance(value, dict):
        return {block(name, (name,), ()): _parts(parts, (name,)) for name, parts in value.items()}
    if isinstance(value, list):
        if not value:
            raise ValueError("an empty list leaves nothing to fit; write ALL")
        mixed = [_trainable(v) if isinstance(v, dict) else block(v, (i,), _PARTS) for i, v in enumerate(value)]
        return mixed
    return block(value, (), _PARTS)


_FUNCTION_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def _callback(value: Any) -> str:
    if not isinstance(value, str) or not _FUNCTION_NAME.fullmatch(value):
        raise ValueError(f"must be an importable function such as my_checks.after_iteration, not {shown(value)}")
    return value


Minimiser = kind("name", optimizers.method, str)


LadderStep = kind("whole number, fraction below 1, or list of both", _ladder_step)


LadderType = choice("body_order", "power_order")


Trainable = kind("ALL, UNARY, ..., radial, func, elements, a list, or {elements: parts}", _trainable)


Repulsion = choice("auto")


Callbacks = kinds.list_of(kind("function", _callback, str), "list of functions", shortest=0, single=True)


POLICIES = ("EnergyBasedWeightingPolicy", "ExternalWeightingPolicy")


Weighting = EnergyBasedWeighting | ExternalWeighting
"""What `fit.weighting` can be."""


class Stage(Section):
    """One stage of a fit. What it does not say is as `fit` says."""

    name: kinds.Text | None = Field(None, description="for the log")
    maxiter: kinds.CountOrZero | None = Field(None, description="iterations; default: fit.maxiter")
    loss: Loss | None = Field(None, description="keys of fit.loss that differ in this stage")
    weights: GroupWeights | None = Field(
        None, description="factors on the weights of groups in this stage, on top of data.weights and of the same form"
    )
    optimizer: Minimiser | None = Field(None, description="default: fit.optimizer")
    options: dict[str, Any] | None = Field(
        None,
        description="of that optimizer; default: fit.options, where the optimizer is the same",
        json_schema_extra={"is": "mapping"},
    )

    def complete(self, fit: Fit) -> None:
        """Fill in what it does not say."""
        own = {key: getattr(self.loss, key) for key in self.loss.model_fields_set} if self.loss else {}
        self.loss = fit.loss.model_copy(update=own)
        if self.options is None:
            self.options = dict(fit.options) if self.optimizer in (None, fit.optimizer) else {}
        self.optimizer = self.optimizer or fit.optimizer
        self.options, inner = _split_options(self.optimizer, self.options, self.maxiter, "maxiter")
        self.maxiter = fit.maxiter if inner is None else inner


def _split_options(
    optimizer: str, options: dict[str, Any], maxiter: int | None, name: str
) -> tuple[dict[str, Any], int | None]:
    """Checked options without `maxiter`, and the maxiter given there or beside them (under the key `name`)."""
    checked = optimizers.check_options(optimizer, options)
    inner = checked.pop("maxiter", None)
    if None not in (inner, maxiter) and inner != maxiter:
        raise KeyedError(("options", "maxiter"), f"differs from {name}, {maxiter}; remove one of them")
    return checked, maxiter if inner is None else inner


def _stages(value: Any) -> Any:
    if not isinstance(value, list) or not value:
        raise ValueError(f"must be a list of stages such as [{{maxiter: 50}}, {{maxiter: 100}}], not {shown(value)}")
    return value


Stages = Annotated[list[Stage], BeforeValidator(_stages)]


class Fit(Section):
    """Loss, weights, optimizer and strategy."""

    loss: Loss = Field(default_factory=Loss, description="terms of the loss function")
    weighting: Annotated[Weighting, Field(discriminator="type")] | None = Field(
        None, description="weights of structures and atoms; default: uniform"
    )
    optimizer: Minimiser = Field(
        "BFGS",
        description="GN-BFGS, BFGS, or a method of scipy.optimize.minimize: " + ", ".join(list(optimizers.OPTIONS)[2:]),
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="options of that method, such as gtol; see below",
        json_schema_extra={"is": "mapping"},
    )
    maxiter: kinds.CountOrZero = Field(
        100, description="iterations of each minimisation (each cycle of each ladder step)"
    )
    fit_cycles: kinds.Count = Field(1, description="number of minimisations, each from the best potential, disturbed")
    noise_relative_sigma: kinds.NotNegative = Field(
        0.0, description="relative disturbance of the parameters in each cycle"
    )
    noise_absolute_sigma: kinds.NotNegative = Field(
        0.0, description="absolute disturbance of the parameters in each cycle"
    )
    randomize_func_coeffs: kinds.NotNegative = Field(
        0.0, description="each cycle starts from random function coefficients of this size; all results are kept"
    )
    ladder_step: LadderStep | None = Field(
        None, description="functions added in each step of a ladder fit; a fraction counts present functions"
    )
    ladder_type: LadderType = Field("body_order", description="which functions come first")
    trainable_parameters: Trainable = Field("ALL", description="what is fitted; the rest keeps its values")
    repulsion: Repulsion | None = Field(
        None, description="auto: after the fit, ZBL repulsion below the shortest distances in the data"
    )
    uncertainty: kinds.Flag = Field(
        False, description="after the fit, write standard deviations of energies and forces beside the potential"
    )
    min_relative_train_loss_per_iter: kinds.NotNegative | None = Field(
        None, description="stop early when the loss falls less per iteration, as a fraction"
    )
    min_relative_test_loss_per_iter: kinds.NotNegative | None = Field(
        None, description="the same with the loss of the test set"
    )
    early_stopping_patience: kinds.Count = Field(200, description="for so many iterations in a row")
    callbacks: Callbacks = Field(
        default_factory=list,
        description="importable functions called after each iteration with basis_config, current_fit_iteration, "
        "current_fit_cycle, current_ladder_step; returning True stops the fit",
    )

    schedule: Stages | None = Field(
        None,
        description="stages that follow each other, each from the result of the one before; see below",
        json_schema_extra={"is": "list of sections"},
    )

    @model_validator(mode="after")
    def _options(self) -> Fit:
        given = self.maxiter if "maxiter" in self.model_fields_set else None
        self.options, maxiter = _split_options(self.optimizer, self.options, given, "fit.maxiter")
        self.maxiter = self.maxiter if maxiter is None else maxiter
        return self

    @model_validator(mode="after")
    def _complete_stages(self) -> Fit:
        if self.schedule is not None and self.fit_cycles > 1:
            raise KeyedError(("fit_cycles",), "a fit has either cycles or a schedule; remove one of them")
        for number, stage in enumerate(self.schedule or ()):
            try:
                stage.complete(self)
            except KeyedError as error:
                raise KeyedError(("schedule", number, *error.path), str(error)) from None
        return self

    @property
    def stages(self) -> list[Fit]:
        """The settings of each stage; of a fit without a schedule they are one."""
        if self.schedule is None:
            return [self]
        keys = ("loss", "maxiter", "optimizer", "options")
        return [self.model_copy(update={key: getattr(stage, key) for key in keys}) for stage in self.schedule]


# ------------------------------------------------------------------------------------------------------- backend


def _gpu_index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < -1:
        raise ValueError(f"must be -1 (no GPU) or the number of a GPU, not {shown(value)}")
    return value


GpuIndex = kind("whole number, -1 or larger", _gpu_index)


class GpuConfig(Section):
    """The GPU of a run on one rank."""

    gpu_ind: GpuIndex | None = Field(None, description="-1: CPU; else the GPU of a run on one rank")
    mem_limit: kinds.NotNegative = Field(0.0, description="GPU memory per rank in MB; 0: all")


_BATCHES = "batches are cut to the free memory"
_RANKS = "the number of MPI ranks sets the parallelism"


EvaluatorName = choice("auto", "cpu", "cuda", "reference", same={"tensorpot": "auto", "pyace": "auto"})


WaitName = choice("yield", "spin")
ImageType = choice("png", "pdf", "svg")


class Backend(Section):
    """Where and how the loss is evaluated."""

    evaluator: EvaluatorName = Field(
        "auto", description="auto: cuda where a GPU is found, else cpu; tensorpot and pyace mean auto"
    )
    display_step: kinds.Count = Field(20, description="iterations between two tables of errors")
    gpu_config: GpuConfig = Field(default_factory=GpuConfig, description="the GPU of a run on one rank")
    memory_limit: kinds.MemorySize | None = Field(None, description="host memory per rank; default: what is free")
    threads: kinds.Count | None = Field(
        None,
        description="threads of a rank's kernels; default: OMP_NUM_THREADS, else the node's cores divided by its ranks",
    )
    optimizer_threads: kinds.Count | None = Field(
        None,
        description="BLAS threads of the optimizer on the first rank, from 2000 parameters on; default: 1. More use "
        "idle cores and those of ranks that wait, with `wait: yield`; last bits depend on this number",
    )
    wait: WaitName = Field(
        "yield",
        description="how ranks wait for the optimizer: yield leaves the core to others after 0.2 ms and answers at "
        "most 5 % of the wait late; spin answers at once and keeps the core busy",
    )
    imagetype: ImageType = Field("png", description="of the figures in report/")
    batch_size: Any = unused("whole number", _BATCHES)
    batch_size_training: Any = unused("whole number", _BATCHES)
    batch_size_evaluation: Any = unused("whole number", _BATCHES)
    batch_size_reduction: Any = unused("true or false", _BATCHES)
    batch_size_reduction_factor: Any = unused("number", _BATCHES)
    parallel_mode: Any = unused("name", _RANKS)
    n_workers: Any = unused("whole number", _RANKS)

    @model_validator(mode="after")
    def _gpu(self) -> Backend:
        if self.gpu_config.gpu_ind == -1:
            if self.evaluator == "cuda":
                raise KeyedError(
                    ("gpu_config", "gpu_ind"), "-1 means no GPU, but backend.evaluator is cuda; remove one"
                )
            if self.evaluator == "auto":
                self.evaluator = "cpu"
        return self


# ---------------------------------------------------------------------------------------------------- checkpoint


class Checkpoint(Section):
    """How an interrupted fit resumes."""

    journal_limit: kinds.MemorySize = Field(
        20 * 2**30,
        description="disk space for the evaluations of one minimisation; where they would take more, an interrupted "
        "fit resumes from its best point instead of exactly",
    )


# ------------------------------------------------------------------------------------------------------ the whole


class Settings(Section):
    """All keys of an input file."""

    cutoff: kinds.Positive | None = Field(
        None,
        description="radius of the neighbour lists of --prepare-data, Å; default, and in a fit: each rcut; a smaller "
        "value is not used",
    )
    seed: kinds.CountOrZero = Field(42, description="of every random choice")
    metadata: kinds.Metadata = Field(
        default_factory=dict, description="free pairs of names and texts, kept in the potential"
    )
    data: Data = Field(default_factory=Data, description="the data; `data: file` is short for data.filename")
    potential: PotentialSection | None = Field(
        None, description="the shape of the potential; `potential: file` continues the fit of that potential"
    )
    fit: Fit = Field(default_factory=Fit, description="loss, weights, optimizer and strategy")
    backend: Backend = Field(default_factory=Backend, description="where and how the loss is evaluated")
    checkpoint: Checkpoint = Field(default_factory=Checkpoint, description="how an interrupted fit resumes")
    scan: Scan | None = Field(None, exclude=True, description="what `pacehpc scan` varies; a fit does not use it")

    _notes: list[str] = PrivateAttr(default_factory=list)
    _warnings: list[str] = PrivateAttr(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What the log should say: keys without meaning here, old forms, values of the command line."""
        return self._notes

    @property
    def warnings(self) -> list[str]:
        """What the log should warn of."""
        return self._warnings

    def finished(self, notes: list[str], warnings: list[str]) -> Settings:
        """With defaults that stand elsewhere in the input filled in."""
        self._notes, self._warnings = notes, warnings
        if self.data.seed is None:
            self.data.seed = self.seed
        if isinstance(self.fit.weighting, EnergyBasedWeighting) and self.fit.weighting.seed is None:
            self.fit.weighting.seed = self.seed
        return self

    def resolved_yaml(self) -> str:
        """All settings with their defaults, as an input file that means the same."""
        return dumps_yaml(self.model_dump(exclude_none=True, by_alias=True))
