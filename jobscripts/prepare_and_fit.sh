#!/usr/bin/env bash
# Run this one on the login node: it compiles the kernels there (compute nodes often lack a compiler), submits the
# preparation of the data to one core, and the fit after it. Copy it and edit the lines marked EDIT.
#   bash prepare_and_fit.sh
set -euo pipefail

# EDIT: how pacehpc comes into the environment
#   source "$HOME/pacehpc/.venv/bin/activate"
input=input.yaml                     # EDIT
fit=cpu.sh                           # EDIT: the job script of the fit
prepare_time=2:00:00                 # EDIT

pacehpc compile "$input"             # kernels are cached in the home folder; same CPU type as the compute nodes
prepare=$(sbatch --parsable --ntasks=1 --time="$prepare_time" --output=slurm-%j.out \
    --wrap "pacehpc $(printf '%q' "$input") --prepare-data")
sbatch --dependency="afterok:$prepare" --kill-on-invalid-dep=yes "$fit"   # no fit where the preparation failed
