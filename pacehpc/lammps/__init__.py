"""A potential as a plugin for LAMMPS: one file with its kernels, its tables and a pair style."""
