"""Which minimisers may be named in the input, and their options.

A method of scipy must need no Hessian, and its callback must be able to stop it (scipy.optimize.minimize,
StopIteration): an early stop, a signal and the end of the walltime depend on it.
"""

from __future__ import annotations

from typing import Any

from pacehpc.schema import kinds
from pacehpc.schema.kinds import KeyedError


def _norm(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, or .inf for the largest component, not {kinds.shown(value)}")
    return float(value)


_LINE_SEARCH = {
    "gtol": kinds.NotNegative,
    "norm": kinds.kind("number, or .inf", _norm, float),
    "c1": kinds.Positive,
    "c2": kinds.Positive,
}
_BFGS = {**_LINE_SEARCH, "xrtol": kinds.NotNegative}

# Largest component of the gradient at which a minimisation ends: what pacemaker's log shows for BFGS and L-BFGS-B,
# below scipy's, which losses of good fits reach too early.
GTOL = 1e-8

# Of GN-BFGS beside those of BFGS, with their defaults: fields of fit.gauss_newton.Method.
GAUSS_NEWTON: dict[str, tuple[Any, float, str]] = {
    "start": (kinds.CountOrZero, 50, "iterations of BFGS before the first renewal of the inverse Hessian"),
    "renew": (kinds.Count, 100, "iterations from one renewal to the next, at least; dear renewals come less often"),
    "rows": (kinds.Positive, 2.0, "rows of the sketched Jacobian over parameters, where their cost allows"),
    "combinations": (
        kinds.Count,
        10,
        "random combinations of a structure's forces; more where structures are large and few",
    ),
    "renewal_cost": (kinds.Positive, 30.0, "evaluations that a renewal may cost; where it would cost more, fewer rows"),
    "mu": (kinds.Positive, 1e-4, "the first damping that is tried"),
    "mu_min": (kinds.Positive, 1e-10, "the smallest damping"),
    "mu_max": (kinds.Positive, 1e-2, "the largest damping that is searched"),
    "radial_damping": (kinds.Positive, 100.0, "damping of radial coefficients over that of function coefficients"),
    "probe": (kinds.Positive, 0.1, "part of a whole step with which a damping is tried"),
}

# The options that mean something here. maxiter and disp are known to every method and handled apart.
OPTIONS: dict[str, dict[str, Any]] = {
    "BFGS": _BFGS,
    "GN-BFGS": {**_BFGS, **{name: annotation for name, (annotation, _, _) in GAUSS_NEWTON.items()}},
    "scipy-BFGS": _BFGS,
    "L-BFGS-B": {
        "maxcor": kinds.Count,
        "ftol": kinds.NotNegative,
        "gtol": kinds.NotNegative,
        "maxfun": kinds.Count,
        "maxls": kinds.Count,
    },
    "CG": _LINE_SEARCH,
    "Newton-CG": {"xtol": kinds.NotNegative, "c1": kinds.Positive, "c2": kinds.Positive},
    "Nelder-Mead": {
        "maxfev": kinds.Count,
        "xatol": kinds.NotNegative,
        "fatol": kinds.NotNegative,
        "adaptive": kinds.Flag,
    },
    "Powell": {"maxfev": kinds.Count, "xtol": kinds.NotNegative, "ftol": kinds.NotNegative},
    "SLSQP": {"ftol": kinds.NotNegative},
    "trust-constr": {
        "xtol": kinds.NotNegative,
        "gtol": kinds.NotNegative,
        "initial_tr_radius": kinds.Positive,
        "verbose": kinds.CountOrZero,
    },
    "COBYLA": {"rhobeg": kinds.Positive, "tol": kinds.NotNegative, "f_target": kinds.Real},
    "COBYQA": {
        "maxfev": kinds.Count,
        "f_target": kinds.Real,
        "initial_tr_radius": kinds.Positive,
        "final_tr_radius": kinds.Positive,
    },
}
_REFUSED = {
    "TNC": "its callback cannot stop it, so that early stopping and signals would not work; use L-BFGS-B",
    **dict.fromkeys(("dogleg", "trust-ncg", "trust-krylov", "trust-exact"), "it needs a Hessian; use BFGS or L-BFGS-B"),
}
# Documented options that cannot do anything here: why.
_POINTLESS = {
    **dict.fromkeys(("eps", "finite_diff_rel_step", "workers"), "gradients are analytic; remove it"),
    **dict.fromkeys(
        ("hess_inv0", "initial_simplex", "direc", "bounds"), "arrays cannot be given in an input; remove it"
    ),
    "return_all": "the iterates are in metrics.txt and the interim potentials; remove it",
    "iprint": "scipy no longer prints; backend.display_step sets how often the errors are shown; remove it",
    **dict.fromkeys(("catol", "feasibility_tol", "scale"), "a fit has no constraints; remove it"),
    **dict.fromkeys(
        (
            "barrier_tol",
            "sparse_jacobian",
            "initial_constr_penalty",
            "initial_barrier_parameter",
            "initial_barrier_tolerance",
            "factorization_method",
        ),
        "a fit has no constraints; remove it",
    ),
}


def method(name: Any) -> str:
    """The method's name as the program spells it; ValueError where it cannot be used."""
    if not isinstance(name, str):
        raise ValueError(f"must be the name of a minimiser, such as BFGS, not {kinds.shown(name)}")
    for known in OPTIONS:
        if name.lower() == known.lower():
            return known
    for refused, reason in _REFUSED.items():
        if name.lower() == refused.lower():
            raise ValueError(f"{refused} cannot be used: {reason}")
    same = next((known for known in OPTIONS if known.replace("-", "").lower().startswith(name.lower())), None)
    hint = f"did you mean `{same}`?" if same else kinds.suggestion(name, OPTIONS)
    raise ValueError(f"unknown minimiser '{name}'; {hint}")


def check_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The checked options of a method; KeyedError("options", key) for the first that cannot be used."""
    known = OPTIONS[name]
    checked = {}
    for key, value in options.items():
        if key in ("maxiter", "disp"):
            annotation = kinds.CountOrZero if key == "maxiter" else kinds.Flag
        elif key in known:
            annotation = known[key]
        elif key in _POINTLESS:
            raise KeyedError(("options", key), _POINTLESS[key])
        else:
            others = [method for method, options in OPTIONS.items() if key in options]
            hint = f"it is one of {others[0]}" if others else kinds.suggestion(key, [*known, "maxiter"])
            raise KeyedError(("options", key), f"unknown option of {name}; {hint}")
        try:
            checked[key] = kinds.checker(annotation)(value)
        except (ValueError, TypeError) as error:
            raise KeyedError(("options", key), str(error)) from None
    if not 0 < checked.get("c1", 1e-4) < checked.get("c2", 0.4 if name == "CG" else 0.9) < 1:
        key = "c1" if "c1" in checked else "c2"
        raise KeyedError(("options", key), "0 < c1 < c2 < 1 is needed for the line search")
    if name == "GN-BFGS":
        _check_damping(checked)
    checked.pop("disp", None)
    if "gtol" in known:
        checked.setdefault("gtol", GTOL)
    return checked


def _check_damping(checked: dict[str, Any]) -> None:
    names = ("mu_min", "mu", "mu_max")
    values = [checked.get(key, GAUSS_NEWTON[key][1]) for key in names]
    if values != sorted(values):
        key = next(key for key in ("mu", "mu_min", "mu_max") if key in checked)
        shown = ", ".join(f"{value:g}" for value in values)
        raise KeyedError(("options", key), f"mu_min <= mu <= mu_max is needed; they are {shown}")
