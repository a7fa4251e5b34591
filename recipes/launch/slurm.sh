#!/bin/bash
# Train a recipe under Slurm, on one node or several:
#   sbatch --nodes=2 --gpus-per-node=8 recipes/launch/slurm.sh recipes/starcoder2/sft.yaml [key=value ...]
#   STARCHAT_LAUNCH=recipes/accelerate/zero2.yaml sbatch ...      another engine than ZeRO-3
#   STARCHAT_PROCESSES=2 sbatch ...                               processes a node; without it, as many as GPUs
# Output and dataset lie on storage that all nodes share. A job that is preempted, requeued, or near its time limit ends its
# step, saves a checkpoint and goes back into the queue; started again, it goes on from there.
#SBATCH --job-name=starchat
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=starchat-%j.log
set -euo pipefail

launch=${STARCHAT_LAUNCH:-recipes/accelerate/zero3.yaml}
export STARCHAT_PROCESSES=${STARCHAT_PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-280} # torch kills workers after 30 s, in the middle of a large save

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
echo "job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)): $SLURM_JOB_NUM_NODES nodes, $STARCHAT_PROCESSES processes each, first node $head_node, $launch"

stopped=
# Five minutes before the time limit. Told to srun instead, the signal would kill the step at once.
trap 'stopped=1; scancel --signal=TERM "$SLURM_JOB_ID.0"' TERM

# shellcheck disable=SC2016  # SLURM_NODEID is each node's own
srun --kill-on-bad-exit=1 bash -c '
    exec accelerate launch --config_file "$1" --num_machines "$SLURM_JOB_NUM_NODES" --machine_rank "$SLURM_NODEID" \
        --num_processes "$((SLURM_JOB_NUM_NODES * STARCHAT_PROCESSES))" --main_process_ip "$2" --main_process_port "$3" \
        -m starchat.train "${@:4}"' \
    starchat "$launch" "$head_node" "$((20000 + SLURM_JOB_ID % 20000))" "$@" &
step=$!
status=0
wait "$step" || status=$?
while kill -0 "$step" 2>/dev/null; do # the signal ended the first wait, the step goes on to its checkpoint
    status=0
    wait "$step" || status=$?
done

if [ -n "$stopped" ] && [ "$status" != 0 ]; then
    echo "job $SLURM_JOB_ID: stopped before its end; back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
