#!/usr/bin/env bash
# For sites without requeue: a chain of jobs, each starting when the one before stopped unfinished.
#   sbatch chain.sh            # the first; every job submits its successor before it starts
#   scancel --name=pace        # ends the chain; cancelling the running job alone starts the next one
# Copy it and edit the lines marked EDIT.
#SBATCH --job-name=pace
#SBATCH --nodes=1                    # EDIT
#SBATCH --ntasks-per-node=32         # EDIT: cores, or GPUs with --gpus-per-node
#SBATCH --cpus-per-task=1
#SBATCH --time=24:00:00              # EDIT
#SBATCH --output=slurm-%j.out
set -euo pipefail

# EDIT: how pacehpc and MPI come into the environment
#   source "$HOME/pacehpc/.venv/bin/activate"
input=input.yaml                     # EDIT
longest=20                           # EDIT: jobs in the chain at most
script=chain.sh                      # EDIT: the name of this copy (Slurm runs a copy elsewhere)
launch=(srun --mpi=pmi2 -K)          # EDIT: --mpi=pmix for Open MPI; (mpirun -n "$SLURM_NTASKS") where srun has no PMI

link=${PACE_LINK:-1}
next=""
if [ "$link" -lt "$longest" ]; then  # afternotok: it starts only if this job ends with a code other than 0
    next=$(sbatch --parsable --dependency="afternotok:$SLURM_JOB_ID" --export="ALL,PACE_LINK=$((link + 1))" "$script")
fi

export OMP_NUM_THREADS=1
progress() { stat -c '%n %s %Y' checkpoint/* prepared_data.h5 2>/dev/null || true; }
before=$(progress)
code=0
"${launch[@]}" pacehpc "$input" || code=$?

# a finished fit, an error, or a start that gained nothing ends the chain
if [ -n "$next" ] && { [ "$code" -ne 75 ] || [ "$(progress)" = "$before" ]; }; then
    scancel "$next"
fi
exit "$code"
