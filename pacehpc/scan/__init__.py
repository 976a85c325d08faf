"""Scans of sizes: many fits, chosen by what earlier ones showed, for the best errors at each speed."""
