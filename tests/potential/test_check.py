"""What is said of bonds whose energies or forces jump at rcut."""

import numpy as np
import pytest

from pacehpc.physics.radial import radial_basis
from pacehpc.potential import build_potential, export_yace


@pytest.mark.parametrize(
    ("radbase", "parameter", "says"),
    [
        ("ChebLinear", 1.0, "energies jump"),
        ("ChebPow", 1.0, "forces jump"),
        ("ChebPow", 2.0, None),
        ("SBessel", 5.25, None),
        ("ChebExpCos", 5.25, None),
    ],
)
def test_jumps_at_rcut_are_said_at_build_and_export(section, tmp_path, caplog, radbase, parameter, says):
    data = section(["Al", "Ni"])
    data["bonds"]["AlNi"] = {"radbase": radbase, "radparameters": [parameter]}
    potential = build_potential(data)
    built = caplog.messages.copy()
    caplog.clear()
    export_yace(potential, tmp_path / "p.yace")
    assert built == caplog.messages
    if says is None:
        assert built == []
    else:
        assert len(built) == 1 and f"bond Al Ni: {radbase} " in built[0] and says in built[0]
    g, dg = (abs(values).max() for values in radial_basis(potential.bonds["Al", "Ni"], np.array([5.0 - 1e-9])))
    assert (g > 1e-6) == (says == "energies jump") and (dg > 1e-6) == (says is not None)
