"""The beginning of an input that several tests of whole fits share."""

from __future__ import annotations

from pathlib import Path

AL_NI = Path(__file__).parents[1] / "examples" / "al_ni" / "al_ni.pckl.gzip"
SMALL_FIT = f"""
cutoff: 4.5
data: {{filename: {AL_NI}, reference_energy: {{Al: 3.28, Ni: 4.44}}, test_size: 0.2}}
potential:
  elements: [Al, Ni]
  embeddings: {{ALL: {{npot: FinnisSinclairShiftedScaled, fs_parameters: [1, 1, 1, 0.5], ndensity: 2}}}}
  bonds: {{ALL: {{radbase: SBessel, radparameters: [5.25], rcut: 4.5, dcut: 0.01}}}}
  functions: {{ALL: {{nradmax_by_orders: [4, 1], lmax_by_orders: [0, 1]}}}}
fit:
  loss: {{kappa: 0.3, L2_coeffs: 1e-8}}
"""
"""174 structures of Al–Ni and a test set; keys of `fit` may follow, indented by two spaces."""
