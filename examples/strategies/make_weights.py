"""Weights of energies and forces for external_weights.yaml, one row for each structure of the data."""

import numpy as np
import pandas as pd

data = pd.read_pickle("../al_ni/al_ni.pckl.gzip", compression="gzip")
wanted = np.array([10.0 if atoms.pbc.all() else 1.0 for atoms in data.ase_atoms])
wanted /= wanted.sum()
n_atoms = np.array([len(atoms) for atoms in data.ase_atoms])
weights = pd.DataFrame(
    {"w_energy": wanted, "w_forces": [np.full(n, w / n) for w, n in zip(wanted, n_atoms, strict=True)]},
    index=data.index,
)
weights.to_pickle("weights.pckl.gzip", compression="gzip", protocol=4)
