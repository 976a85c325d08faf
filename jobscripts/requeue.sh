#!/usr/bin/env bash
# A fit longer than any allocation: the job puts itself back into the queue until the fit is finished.
# Copy it and edit the lines marked EDIT.
#SBATCH --job-name=pace
#SBATCH --nodes=1                    # EDIT
#SBATCH --ntasks-per-node=32         # EDIT: cores, or GPUs with --gpus-per-node
#SBATCH --cpus-per-task=1
#SBATCH --time=24:00:00              # EDIT
#SBATCH --requeue
#SBATCH --open-mode=append           # each start appends to the same output
#SBATCH --signal=USR1@300            # to the ranks, 300 s before the end: more than two evaluations and writing take
#SBATCH --output=slurm-%j.out
set -euo pipefail

# EDIT: how pacehpc and MPI come into the environment
#   source "$HOME/pacehpc/.venv/bin/activate"
input=input.yaml                     # EDIT
# EDIT: --mpi=pmix for Open MPI; where srun has no PMI: (mpirun -n "$SLURM_NTASKS"), and remove the --signal above, which
# would reach mpirun's helpers: the fit knows the end of the allocation itself
launch=(srun --mpi=pmi2 -K)

export OMP_NUM_THREADS=1
progress() { stat -c '%n %s %Y' checkpoint/* prepared_data.h5 2>/dev/null || true; }
before=$(progress)

code=0
"${launch[@]}" pacehpc "$input" || code=$?

if [ "$code" -ne 75 ]; then          # 0: finished; others: an error, which a new start would meet again
    exit "$code"
fi
if [ "$(progress)" = "$before" ]; then
    echo "This start gained no evaluation: the allocation is too short. Not requeued." >&2
    exit 1
fi
trap '' TERM                         # requeueing sends TERM to this script
scontrol requeue "$SLURM_JOB_ID"
sleep 60                             # the requeue ends this script
