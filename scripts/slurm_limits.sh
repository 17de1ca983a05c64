#!/bin/bash
# Real time limits on a real SLURM (slurm_node.sh): an array of two short tasks and a long one, two minutes a start. The
# last task reaches its limit until it is done; the others must not be started again. Takes about ten minutes.
#
#   scripts/slurm_limits.sh FOLDER [STEPS]   # a new folder; logs and records stay in it. STEPS: of the long task, which
#                                            # must take more than a minute on this machine
set -euo pipefail
R=$(realpath -m "${1:?usage: slurm_limits.sh FOLDER [STEPS]}")
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$(command -v .venv/bin/python || command -v python)}
export OMP_NUM_THREADS=1 PYTHONPATH=$PWD
SDSBENCH="$PYTHON -m sdsbench"
RUNS=$R/runs
source scripts/slurm_node.sh
start_slurm
$SDSBENCH plan model=micro data.source=embedded threads=1 device=cpu eval.limit=8 eval.untrained=false \
  task.max_new_tokens=20 train.checkpoint_every=50 train.batch_size=16 train.max_steps=5,6,${2:-3000} \
  output_root="$RUNS" --folder "$R/plan"
$SDSBENCH submit "$R/plan" slurm=cpu slurm.time=2:00 slurm.signal_seconds=60 slurm.memory=1500M slurm.runs_per_task=1
use_plan "$R/plan"
wait_for queue_empty
$SDSBENCH status "$R/plan"
grep -h requeued "$SENT/task-2.log"
for task in 0 1 2; do task_ends $task COMPLETED 0; done
log "starts beyond the first: $(restarts_of 0) $(restarts_of 1) $(restarts_of 2)"
[ "$(restarts_of 0) $(restarts_of 1)" = "0 0" ] && [ "$(restarts_of 2)" -ge 1 ]
