#!/usr/bin/env bash
# Active learning, a job per generation; see examples/active_learning. In a copy of that folder:
#   sbatch active_learning.sh            # generation 0; every job submits the next one
#   scancel --name=active                # ends the chain
# A job that is killed is followed by one that resumes its generation. Copy it and edit the lines marked EDIT.
#SBATCH --job-name=active
#SBATCH --nodes=1                    # EDIT
#SBATCH --ntasks-per-node=2          # EDIT
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00              # EDIT
#SBATCH --output=slurm-%j.out
set -euo pipefail

# EDIT: how pacehpc and MPI come into the environment
#   source "$HOME/pacehpc/.venv/bin/activate"
last=4                               # EDIT: the last generation
tries=5                              # EDIT: jobs per generation at most
script=active_learning.sh            # EDIT: the name of this copy (Slurm runs a copy elsewhere)

generation=${GENERATION:-0}
try=${TRY:-1}
again=""
if [ "$try" -lt "$tries" ]; then     # afternotok: it starts only if this job fails, is killed, or stops unfinished
    again=$(sbatch --parsable --dependency="afternotok:$SLURM_JOB_ID" \
        --export="ALL,GENERATION=$generation,TRY=$((try + 1))" "$script")
fi

export OMP_NUM_THREADS=1 RANKS=$SLURM_NTASKS
python generation.py "$generation"   # any failure ends this script here

if [ -n "$again" ]; then
    scancel "$again"
fi
if [ "$generation" -lt "$last" ] && [ -d "gen_$((generation + 1))" ]; then
    sbatch --export="ALL,GENERATION=$((generation + 1)),TRY=1" "$script"
fi
