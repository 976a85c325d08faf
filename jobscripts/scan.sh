#!/usr/bin/env bash
# A scan of sizes: an array of workers that share one scan; see docs/scan.md. Each worker fits one trial at a time.
# The input has a section `scan`. Copy it and edit the lines marked EDIT. Submit it again to go on: trials whose jobs ended
# are resumed, and workers end when no trial is left.
#SBATCH --job-name=scan
#SBATCH --array=1-4                  # EDIT: workers
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8          # EDIT: ranks of each fit
#SBATCH --cpus-per-task=1
#SBATCH --time=24:00:00              # EDIT
#SBATCH --output=slurm-%A_%a.out
set -euo pipefail

# EDIT: how pacehpc and MPI come into the environment
#   source "$HOME/pacehpc/.venv/bin/activate"
input=input.yaml                     # EDIT: with a section `scan`
launch="srun --mpi=pmi2 -K"          # EDIT: --mpi=pmix for Open MPI; "mpirun -n $SLURM_NTASKS" where srun has no PMI

export OMP_NUM_THREADS=1
pacehpc scan "$input" --launcher "$launch"
