#!/bin/bash
# A real SLURM on this machine (Debian's slurm-wlm, one node, no systemd), and a 12-run plan on it as a job array: one
# task is cancelled, one killed -9, one hits its time limit, the node fails once. All 12 records must end complete and
# bitwise equal to those of the same plan run here without SLURM. Needs root on Debian or Ubuntu; ends its daemons.
#
#   scripts/slurm_demo.sh FOLDER        # a new folder; logs and records stay in it
set -euo pipefail
R=$(realpath -m "${1:?usage: slurm_demo.sh FOLDER}")
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$(command -v .venv/bin/python || command -v python)}
export OMP_NUM_THREADS=1 SLURM_CONF=$R/slurm.conf
SDSBENCH="$PYTHON -m sdsbench"
H=$(hostname -s)
mkdir -p "$R"/{state,spool,log}

say() { echo "[$(date +%T)] $*"; }

stop() {
  scancel --me 2>/dev/null || true
  for _ in $(seq 40); do [ -z "$(squeue -h --me 2>/dev/null)" ] && break; sleep 0.5; done
  for pid in "$R/slurmd.pid" "$R/slurmctld.pid" "$R/munged.pid"; do
    [ -s "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
  done
}

start() {
  cat > "$SLURM_CONF" <<C
ClusterName=demo
SlurmctldHost=$H(127.0.0.1)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=cred_expire=30
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile=$R/slurmctld.pid
SlurmdPidFile=$R/slurmd.pid
StateSaveLocation=$R/state
SlurmdSpoolDir=$R/spool
SlurmctldLogFile=$R/log/slurmctld.log
SlurmdLogFile=$R/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
MailProg=/bin/true
SlurmctldTimeout=600
SlurmdTimeout=600
MinJobAge=3600
KillWait=10
NodeName=$H NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$(($(awk '/MemTotal/{print $2}' /proc/meminfo) / 1024 - 512)) State=UNKNOWN
PartitionName=debug Nodes=$H Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
C
  if ! munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then
    install -d -o munge -g munge -m 0755 /run/munge
    [ -s /etc/munge/munge.key ] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none; chown munge:munge /etc/munge/munge.key; chmod 0400 /etc/munge/munge.key; }
    runuser -u munge -- /usr/sbin/munged
    cp /run/munge/munged.pid "$R/munged.pid"
  fi
  trap stop EXIT
  /usr/sbin/slurmctld -f "$SLURM_CONF"
  /usr/sbin/slurmd -f "$SLURM_CONF" -N "$H"
  wait_for node_is idle
}

PATIENCE=3600 # seconds: a net against a demo that hangs, far above what any wait takes on a busy machine
wait_for() { # COMMAND...: until the command succeeds
  local until=$((SECONDS + PATIENCE))
  until "$@"; do
    sleep 0.5
    [ "$SECONDS" -lt "$until" ] || { say "waited too long for: $*"; $SDSBENCH status "$R/plan"; tail -n 5 "$R"/plan/submissions/*/task-*.log; exit 1; }
  done
}
run_of() { "$PYTHON" -c "import json, sys; print(json.load(open(sys.argv[1]))[0])" "$R/plan/submissions/001/task-$1.json"; }
worker_of() { pgrep -f "sdsbench.sweeps.worker $R/plan .*/001/task-$1.json" | head -1; }
in_the_middle() { # TASK: of its training
  local steps
  steps=$(grep -c '"train"' "$R/runs/$(run_of "$1")/metrics.jsonl" 2>/dev/null) && [ "$steps" -ge 3 ] && [ "$steps" -le 30 ]
}
# Sets VICTIM to a running task in the middle of its training, other than those named, and WORKER to its process, which
# stands still from then on: whatever follows finds it there, however busy the machine is.
find_victim() {
  for VICTIM in $(squeue -h -r -t RUNNING -o '%K' | sort -n); do
    [[ " $* " == *" $VICTIM "* ]] && continue
    in_the_middle "$VICTIM" || continue
    WORKER=$(worker_of "$VICTIM")
    [ -n "$WORKER" ] && kill -STOP "$WORKER" 2>/dev/null || continue
    in_the_middle "$VICTIM" && return 0
    kill -CONT "$WORKER"
  done
  return 1
}
node_is() { sinfo -h -o '%T' 2>/dev/null | grep -q "$1"; }
log_has() { grep -q "$2" "$R/plan/submissions/001/task-$1.log"; }
queue_empty() { [ -z "$(squeue -h --me)" ]; }

command -v sbatch >/dev/null && command -v munged >/dev/null || {
  say "installing slurm-wlm and munge"
  apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
}
start
say "$(sinfo --version) is up"

$SDSBENCH plan model=micro data.source=embedded threads=1 device=cpu eval.limit=8 eval.untrained=false \
  task.max_new_tokens=20 train.checkpoint_every=2 data.train_limit=64 train.max_steps=40 train.batch_size=4 \
  method=lora,sds_lora,lora_xs seed=0,1,2,3 output_root="$R/runs" --folder "$R/plan"

say "the same plan without SLURM"
$SDSBENCH sweep "$R/plan" output_root="$R/alone" --workers 2

NOTICE=600 # seconds before the time limit at which SLURM warns: the time that the task may stand still after it
say "as a job array"
$SDSBENCH submit "$R/plan" slurm=cpu slurm.time=01:00:00 slurm.memory=1500M slurm.runs_per_task=1 \
  slurm.signal_seconds=$NOTICE
JOB=$("$PYTHON" -c "import json; print(json.load(open('$R/plan/submissions/001/submission.json'))['job'])")

wait_for find_victim
KILLED=$VICTIM
say "task $KILLED: kill -9 of its worker"
kill -9 "$WORKER"

wait_for find_victim "$KILLED"
SLOW=$VICTIM SLOW_WORKER=$WORKER
say "task $SLOW: stands still until its time limit is near"
scontrol update jobid="${JOB}_$SLOW" timelimit=$((NOTICE / 60))

wait_for find_victim "$KILLED" "$SLOW"
CANCELLED=$VICTIM
say "task $CANCELLED: cancelled"
$SDSBENCH cancel "$R/plan" --run "$(run_of "$CANCELLED")"
kill -CONT "$WORKER" 2>/dev/null || true # SLURM may have ended it already

wait_for log_has "$SLOW" "received USR1"
kill -CONT "$SLOW_WORKER"
wait_for log_has "$SLOW" "requeued"

wait_for find_victim "$KILLED" "$SLOW" "$CANCELLED"
say "the node fails under task $VICTIM and whatever else it runs"
kill -9 "$(cat "$R/slurmd.pid")"
for pid in $(scontrol listpids 2>/dev/null | awk 'NR > 1 && $1 > 0 {print $1}') $(pgrep -f "sdsbench.sweeps.worker $R/plan"); do
  parent=$(ps -o ppid= -p "$pid" 2>/dev/null | tr -d ' ') || continue
  case "$(ps -o args= -p "$parent")" in slurmstepd*) kill -9 "$parent" ;; esac
  kill -9 "$pid" 2>/dev/null || true
done
scontrol update nodename="$H" state=down reason=demo
wait_for node_is down
/usr/sbin/slurmd -f "$SLURM_CONF" -N "$H"
node_is_back() { # ReturnToService may be faster than this request
  node_is 'idle\|mixed\|alloc' && return
  scontrol update nodename="$H" state=resume 2>/dev/null || true
  return 1
}
wait_for node_is_back

wait_for queue_empty
say "sent again: what was cancelled"
$SDSBENCH submit "$R/plan" slurm=cpu slurm.time=01:00:00 slurm.memory=1500M
wait_for queue_empty
$SDSBENCH status "$R/plan"

say "compared with the runs without SLURM"
PYTHONPATH=. "$PYTHON" scripts/compare_runs.py "$R/runs" "$R/alone"
"$PYTHON" - "$R/runs" <<'P'
import collections, json, pathlib, sys
records = [json.loads(path.read_text()) for path in pathlib.Path(sys.argv[1]).glob("*/record.json")]
ends = collections.Counter(attempt["status"] for record in records for attempt in record["attempts"])
print(f"{len(records)} records; attempts:", ", ".join(f"{count} {status}" for status, count in sorted(ends.items())))
missing = {"killed", "timeout", "preempted", "node_failure"} - ends.keys()
sys.exit(f"no attempt ended as {', '.join(sorted(missing))}" if missing or len(records) != 12 or ends["done"] != 12 else 0)
P
say "done"
