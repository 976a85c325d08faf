#!/usr/bin/env bash
# One node with GPUs: one rank per GPU. Copy it and edit the lines marked EDIT.
#SBATCH --job-name=pace
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1          # EDIT: GPUs of the node
#SBATCH --gpus-per-node=1            # EDIT: the same number
#SBATCH --cpus-per-task=8            # for the optimizer on the first rank and the data
#SBATCH --time=24:00:00              # EDIT; the fit stops cleanly before this and resumes when submitted again
#SBATCH --output=slurm-%j.out
set -euo pipefail

# EDIT: how pacehpc and MPI come into the environment, for instance
#   module load cuda openmpi python        (MPI4PY_MPIABI chooses the site's MPI for mpi4py)
#   source "$HOME/pacehpc/.venv/bin/activate"
input=input.yaml                     # EDIT
launch=(srun --mpi=pmi2 -K)          # EDIT: --mpi=pmix for Open MPI; (mpirun -n "$SLURM_NTASKS") where srun has no PMI

export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
export SRUN_CPUS_PER_TASK="$OMP_NUM_THREADS"   # srun of Slurm 22.05 to 23.02 does not take it from the job
"${launch[@]}" pacehpc "$input" --backend cuda
