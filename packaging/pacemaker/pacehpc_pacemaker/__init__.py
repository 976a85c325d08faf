"""The commands and the module of pacemaker, with pacehpc behind them."""
