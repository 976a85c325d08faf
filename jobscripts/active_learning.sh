#!/bin/bash
#SBATCH --job-name=active_learning
#SBATCH --ntasks=2
#SBATCH --time=01:00:00
#SBATCH --signal=USR1@120
#SBATCH --open-mode=append
# Generations of active learning, each a job that submits the next one:
#   sbatch active_learning.sh 0 5     # generations 0 to 5, in the folder of generation.py
# A job that ends before its generation does (exit code 75, walltime) is submitted again and resumes.
set -u
generation=${1:-0}
last=${2:-5}
script=${SLURM_SUBMIT_DIR:-.}/active_learning.sh

RANKS=${SLURM_NTASKS:-2} python generation.py "$generation"
code=$?
if [ "$code" -eq 75 ]; then
    sbatch "$script" "$generation" "$last"
elif [ "$code" -eq 0 ] && [ "$generation" -lt "$last" ] && [ -d "gen_$((generation + 1))" ]; then
    sbatch "$script" "$((generation + 1))" "$last"
fi
exit "$code"
