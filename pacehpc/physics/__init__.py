"""The formulas of the atomic cluster expansion in plain NumPy: values and derivatives, one topic per module."""
