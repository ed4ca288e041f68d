#!/bin/bash
# A run on Slurm: a task is a worker. Submit this file with the arguments of `noiseless train`, from a shell in which
# `noiseless` is on the path; the run's directory is on a file system that all nodes share:
#
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --time=24:00:00 slurm.sh \
#       fb-practice --data npz:/shared/cifar10.npz --device cuda --threads 1 --run-dir /shared/run
#
# Two minutes before the time limit the tasks are told to stop. They end with 130 within a step, and the job is queued
# again, until the run has ended. The same holds for a task that is lost (4; 137: killed), at most 20 times.
#SBATCH --ntasks=2 --requeue --open-mode=append --signal=TERM@120

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
WORLD_SIZE=$SLURM_NTASKS
export MASTER_ADDR MASTER_PORT WORLD_SIZE

srun --kill-on-bad-exit=0 bash -c \
    'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID exec noiseless train "$@" --again' noiseless "$@"
code=$?

case $code in
4 | 130 | 137)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
    ;;
esac
exit $code
