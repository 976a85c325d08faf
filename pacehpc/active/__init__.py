"""Active sets and extrapolation grades: how far an atom's neighbourhood lies from those that a potential was fitted to."""
