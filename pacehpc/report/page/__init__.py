"""report/index.html: one file that shows a fit, opens without a network, and needs nothing beside it."""
