"""The fit: optimizers, cycles, ladder, early stopping, callbacks, outputs."""
