"""Calibrated uncertainties of energies and forces from the linearised model."""
