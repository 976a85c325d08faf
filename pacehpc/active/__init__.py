"""Active sets and extrapolation grades: how far an atom's neighbourhood is from those of the training data."""
