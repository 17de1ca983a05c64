#!/bin/bash
# Submits plans as job arrays to a real SLURM (slurm_node.sh) and ends their tasks in every way: one task is cancelled,
# one is killed with kill -9, one reaches its time limit, the node fails; the last task of an array reaches its limit,
# is killed and is preempted. All records must be complete and bitwise equal to those of the same plans run here without
# SLURM, and SLURM must report failed runs as failed. Real time limits, which take minutes: slurm_limits.sh.
#
#   scripts/slurm_demo.sh FOLDER        # a new folder; logs and records stay in it
set -euo pipefail
R=$(realpath -m "${1:?usage: slurm_demo.sh FOLDER}")
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$(command -v .venv/bin/python || command -v python)}
export OMP_NUM_THREADS=1 PYTHONPATH=$PWD/examples/lora_extras:$PWD
SDSBENCH="$PYTHON -m sdsbench"
RUNS=$R/runs
source scripts/slurm_node.sh
start_slurm

SMALL="model=micro data.source=embedded threads=1 eval.limit=8 eval.untrained=false task.max_new_tokens=20
  train.checkpoint_every=2 data.train_limit=64 train.batch_size=4"
$SDSBENCH plan $SMALL device=cpu train.max_steps=60 method=lora,sds_lora seed=0,1,2 output_root="$RUNS" \
  --folder "$R/at 100% load"
$SDSBENCH plan $SMALL device=cpu train.max_steps=5,6,200 output_root="$RUNS" --folder "$R/last"
$SDSBENCH plan $SMALL plugins=[lora_extras] method=init_ab train.lr=1e-3,1e30 device=auto train.clip_norm=null \
  train.schedule=constant train.max_steps=4 output_root="$RUNS" --folder "$R/plugin"

log "running the same plans without SLURM"
for plan in "at 100% load" last; do $SDSBENCH sweep "$R/$plan" output_root="$R/alone" --workers 2; done

ON_CPU="slurm=cpu slurm.time=1h slurm.memory=1500M slurm.runs_per_task=1"
NOTICE=600 # seconds between SLURM's warning and the time limit; a stopped task must be resumed within them

# Sets VICTIM to a running task in the middle of its training, other than the tasks in the arguments, and WORKER to its
# process, which it stops (SIGSTOP): the next step of this script finds it at that point, however busy the machine is.
is_mid_training() { local steps; steps=$(steps_of "$1"); [ "${steps:-0}" -ge 3 ] && [ "$steps" -le 50 ]; }
find_victim() {
  for VICTIM in $(squeue -h -r -j "$JOB" -t RUNNING -o '%K' | sort -n); do
    [[ " $* " == *" $VICTIM "* ]] && continue
    is_mid_training "$VICTIM" || continue
    WORKER=$(worker_of "$VICTIM")
    [ -n "$WORKER" ] && kill -STOP "$WORKER" 2>/dev/null || continue
    is_mid_training "$VICTIM" && return 0
    kill -CONT "$WORKER"
  done
  return 1
}
stop_after() { # TASK STEPS: stop the task's worker (SIGSTOP) once it has made STEPS steps; sets WORKER
  [ "$(steps_of "$1")" -ge "$2" ] 2>/dev/null && WORKER=$(worker_of "$1") && [ -n "$WORKER" ] && kill -STOP "$WORKER"
}
meet_limit() { # TASK WORKER: let a stopped task come near its time limit and resume it; its next start has an hour again
  scontrol update jobid="${JOB}_$1" timelimit=$((NOTICE / 60))
  wait_for log_has "$1" "received USR1"
  kill -CONT "$2"
  wait_for log_has "$1" "after USR1; requeued"
  scontrol update jobid="${JOB}_$1" timelimit=60
}

log "running them as a job array"
$SDSBENCH submit "$R/at 100% load" $ON_CPU slurm.signal_seconds=$NOTICE
use_plan "$R/at 100% load"

wait_for find_victim
KILLED=$VICTIM
log "task $KILLED: kill -9 of its worker"
kill -9 "$WORKER"

wait_for find_victim "$KILLED"
SLOW=$VICTIM SLOW_WORKER=$WORKER
log "task $SLOW: stopped until its time limit is near"
scontrol update jobid="${JOB}_$SLOW" timelimit=$((NOTICE / 60))

wait_for find_victim "$KILLED" "$SLOW"
CANCELLED=$VICTIM
log "task $CANCELLED: cancelled"
$SDSBENCH cancel "$PLAN" --run "$(run_of "$CANCELLED")"
kill -CONT "$WORKER" 2>/dev/null || true # SLURM may have ended it already

wait_for find_victim "$KILLED" "$SLOW" "$CANCELLED"
meet_limit "$SLOW" "$SLOW_WORKER"
log "the node fails while it runs task $VICTIM and others"
kill -9 "$(cat "$R/slurmd.pid")"
for pid in $(scontrol listpids 2>/dev/null | awk 'NR > 1 && $1 > 0 {print $1}') $(pgrep -f "sdsbench.sweeps.worker $PLAN"); do
  parent=$(ps -o ppid= -p "$pid" 2>/dev/null | tr -d ' ') || continue
  case "$(ps -o args= -p "$parent")" in slurmstepd*) kill -9 "$parent" ;; esac
  kill -9 "$pid" 2>/dev/null || true
done
scontrol update nodename="$H" state=down reason=demo
wait_for node_is down
/usr/sbin/slurmd -f "$SLURM_CONF" -N "$H"
node_is_back() { # by ReturnToService, or by this request
  node_is 'idle\|mixed\|alloc' && return
  scontrol update nodename="$H" state=resume 2>/dev/null || true
  return 1
}
wait_for node_is_back
wait_for queue_empty
[ "$(restarts_of "$SLOW")" -le 2 ] || { log "task $SLOW was started again $(restarts_of "$SLOW") times"; exit 1; }

log "submitting the cancelled run again, and an array whose last task reaches its limit, is killed and is preempted"
$SDSBENCH submit "$PLAN" $ON_CPU
$SDSBENCH submit "$R/last" $ON_CPU slurm.signal_seconds=$NOTICE
use_plan "$R/last"
wait_for stop_after 2 3
meet_limit 2 "$WORKER"
steps=$(steps_of 2)
wait_for stop_after 2 $((steps + 3))
kill -9 "$WORKER"
wait_for log_has 2 "code 137; requeued"
wait_for stop_after 2 $((steps + 9))
sbatch -p urgent -n 2 --mem=100M -o /dev/null --wrap true
wait_for log_has 2 "received TERM"
kill -CONT "$WORKER" 2>/dev/null || true
wait_for queue_empty
for task in 0 1 2; do task_ends $task COMPLETED 0; done
[ "$(restarts_of 0) $(restarts_of 1) $(restarts_of 2)" = "0 0 3" ] || { log "finished siblings were started again"; exit 1; }

log "a plan with a plugin; SLURM must report tasks that cannot work as failed"
submit_copy() { # COPY WORDS...: submit a copy of the plugin's plan with both runs in one task
  cp -r "$R/plugin" "$R/$1"
  $SDSBENCH submit "$R/$1" slurm=cpu slurm.memory=1500M "${@:2}"
}
submit_copy no_module slurm.setup="['module load CUDAA/12']"
submit_copy one_gpu slurm.gpus=1
submit_copy two_gpus slurm.gpus=2 slurm.cpus=2
wait_for queue_empty
for copy in no_module one_gpu two_gpus; do use_plan "$R/$copy"; task_ends 0 FAILED 3; done
grep -q "setup failed with code 127: module load CUDAA/12" "$R"/no_module/submissions/001/task-0.log
grep -q "device=cuda: this worker's GPU cannot be used" "$R"/one_gpu/submissions/001/task-0.log
grep -q "device=cuda: this worker's GPU cannot be used" "$R"/two_gpus/logs/*-gpu0.log # one worker per GPU
grep -q "device=cuda: this worker's GPU cannot be used" "$R"/two_gpus/logs/*-gpu1.log
[ ! -e "$RUNS/$(run_of 0)" ] # none of these tasks began a run
$SDSBENCH submit "$R/plugin" $ON_CPU slurm.mail_user=somebody@example.org
use_plan "$R/plugin"
wait_for queue_empty
task_ends 0 COMPLETED 0
task_ends 1 FAILED 4 # its loss is not finite
wait_for grep -q "Failed.*somebody@example.org" "$R/mail.log"
"$PYTHON" - "$RUNS/$(run_of 0)/record.json" <<'P'
import json, sys
record = json.load(open(sys.argv[1]))
assert record["status"] == "done" and "plugin:lora_extras" in record["provenance"]["code"], record["provenance"]["code"]
P
$SDSBENCH status "$R/at 100% load"
log "Hydra's own launcher: failures are reported, signalled and preempted jobs continue"
launched() { # WORDS...: run `-m` with them; sets CODE to its exit code and writes its output to launched.log
  CODE=0
  $SDSBENCH -m hydra/launcher=submitit_slurm hydra.launcher.partition=debug hydra.launcher.cpus_per_task=1 \
    hydra.launcher.mem_gb=2 $SMALL device=cpu method=lora output_root="$R/launched" "$@" >"$R/launched.log" 2>&1 || CODE=$?
}
code_is() { [ "$CODE" = "$1" ] || { log "code $CODE, not $1"; cat "$R/launched.log"; exit 1; }; }
launched train.max_steps=2 method.rank=8,0
code_is 2
grep -q "method.rank=0" "$R/launched.log"
! grep Traceback "$R/launched.log" || exit 1
grep -q '"status": "done"' "$R"/launched/*/record.json # the other job ran nevertheless
wait_for queue_empty
JOB=$(basename "$(ls -d "$R"/launched/.multirun/.submitit/*_0)" _0)
task_ends 0 COMPLETED 0
task_ends 1 FAILED 2
rm -r "$R/launched"

launched_stops_after() { # STEPS: stop the job (SIGSTOP) once it has made STEPS steps; sets WORKER
  [ "$(cat "$R"/launched/*/metrics.jsonl 2>/dev/null | grep -c '"train"')" -ge "$1" ] || return 1
  WORKER=$(pgrep -f "submitit.core._submit $R/launched" | tail -1) && kill -STOP "$WORKER"
}
launcher_log_has() { cat "$R"/launched/.multirun/.submitit/*/*.err | grep -q "$1"; }
(launched train.max_steps=60 && code_is 0) &
WAITING=$!
wait_for launched_stops_after 3
scancel --signal=USR2 "$(squeue -h --me -o %A)" # the signal that submitit requests before a time limit
kill -CONT "$WORKER"
wait_for launcher_log_has "this job is preempted"
steps=$(cat "$R"/launched/*/metrics.jsonl | grep -c '"train"')
wait_for launched_stops_after $((steps + 3))
sbatch -p urgent -n 2 --mem=100M -o /dev/null --wrap true
wait_for launcher_log_has "DUE TO PREEMPTION"
kill -CONT "$WORKER" 2>/dev/null || true # SLURM may have ended it already
wait "$WAITING"
"$PYTHON" - "$R"/launched/*/record.json <<'P'
import json, sys
attempts = [(attempt["status"], attempt["from_step"] > 0) for attempt in json.load(open(sys.argv[1]))["attempts"]]
print("attempts of the launched run, and whether they continued from a saved state:", attempts)
assert attempts == [("preempted", False), ("preempted", True), ("done", True)]
P
wait_for queue_empty

log "comparing with the runs without SLURM"
rm -r "$RUNS/$(run_of 0)" "$RUNS/$(run_of 1)" # the plugin's
"$PYTHON" scripts/compare_runs.py "$RUNS" "$R/alone"
"$PYTHON" - "$RUNS" <<'P'
import collections, json, pathlib, sys
records = [json.loads(path.read_text()) for path in pathlib.Path(sys.argv[1]).glob("*/record.json")]
ends = collections.Counter(attempt["status"] for record in records for attempt in record["attempts"])
print(f"{len(records)} records; attempts:", ", ".join(f"{count} {status}" for status, count in sorted(ends.items())))
missing = {"killed", "timeout", "preempted", "node_failure"} - ends.keys()
sys.exit(f"no attempt ended as {', '.join(sorted(missing))}" if missing or len(records) != 9 or ends["done"] != 9 else 0)
P
log "done"
