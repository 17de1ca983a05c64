# Starts a real SLURM on this machine (Debian's slurm-wlm, one node, no systemd); sourced by slurm_demo.sh and
# slurm_limits.sh. The node has two cores, however many this machine has, and two GPUs that exist for SLURM only (device
# files that nothing computes on). Jobs of the partition `urgent` preempt those of `debug`. Mails are appended to
# mail.log. Needs root on Debian or Ubuntu; stops its daemons at the end.
#
#   R=FOLDER; source scripts/slurm_node.sh; start_slurm
mkdir -p "$R"/{state,spool,log}
export SLURM_CONF=$R/slurm.conf
H=$(hostname -s)

log() { echo "[$(date +%T)] $*"; }

stop_slurm() {
  scancel --me 2>/dev/null || true
  for _ in $(seq 40); do [ -z "$(squeue -h --me 2>/dev/null)" ] && break; sleep 0.5; done
  for pid in "$R/slurmd.pid" "$R/slurmctld.pid" "$R/munged.pid"; do
    [ -s "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true
  done
}

write_configuration() {
  for number in 0 1; do [ -e "$R/gpu$number" ] || mknod "$R/gpu$number" c 1 3; done
  echo "NodeName=$H Name=gpu File=$R/gpu[0-1]" > "$R/gres.conf"
  printf '#!/bin/sh\necho "$@" >> "%s/mail.log"\n' "$R" > "$R/mail.sh"
  chmod +x "$R/mail.sh"
  cat > "$SLURM_CONF" <<C
ClusterName=demo
SlurmctldHost=$H(127.0.0.1)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=cred_expire=8
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
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
MailProg=$R/mail.sh
SlurmctldTimeout=600
SlurmdTimeout=600
MinJobAge=3600
KillWait=10
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=$H NodeAddr=127.0.0.1 CPUs=2 Gres=gpu:2 RealMemory=$(($(awk '/MemTotal/{print $2}' /proc/meminfo) / 1024 - 512)) State=UNKNOWN
PartitionName=debug Nodes=$H Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=1
PartitionName=urgent Nodes=$H MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=10
C
}

start_slurm() {
  command -v sbatch >/dev/null && command -v munged >/dev/null || {
    log "installing slurm-wlm and munge"
    apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
  }
  write_configuration
  if ! munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then
    install -d -o munge -g munge -m 0755 /run/munge
    [ -s /etc/munge/munge.key ] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none; chown munge:munge /etc/munge/munge.key; chmod 0400 /etc/munge/munge.key; }
    runuser -u munge -- /usr/sbin/munged
    cp /run/munge/munged.pid "$R/munged.pid"
  fi
  trap stop_slurm EXIT
  /usr/sbin/slurmctld -f "$SLURM_CONF"
  /usr/sbin/slurmd -f "$SLURM_CONF" -N "$H"
  wait_for node_is idle
  log "$(sinfo --version) is up"
}

PATIENCE=3600 # seconds after which a demo counts as hanging; on a busy machine every wait takes far less
wait_for() { # COMMAND...: repeat the command until it succeeds; exit 1 after PATIENCE seconds
  local until=$((SECONDS + PATIENCE))
  until "$@"; do
    sleep 0.2
    [ "$SECONDS" -lt "$until" ] || { log "waited too long for: $*"; squeue -r -t all; tail -n 5 "$R"/*/submissions/*/task-*.log; exit 1; }
  done
}
node_is() { sinfo -h -p debug -o '%T' 2>/dev/null | grep -q "$1"; }
queue_empty() { [ -z "$(squeue -h --me)" ]; }

# The functions below are about the newest submission of a plan; `use_plan PLAN` chooses the plan.
use_plan() { PLAN=$1 SENT=$(ls -d "$1"/submissions/[0-9]* | tail -1); JOB=$("$PYTHON" -c "import json, sys; print(json.load(open(sys.argv[1]))['job'])" "$SENT/submission.json"); }
run_of() { "$PYTHON" -c "import json, sys; print(json.load(open(sys.argv[1]))[0])" "$SENT/task-$1.json"; }
worker_of() { pgrep -f "sdsbench.sweeps.worker $PLAN .*/$(basename "$SENT")/task-$1.json" | head -1; }
log_has() { grep -q "$2" "$SENT/task-$1.log"; }
steps_of() { grep -c '"train"' "$RUNS/$(run_of "$1")/metrics.jsonl" 2>/dev/null || true; }
task_ends() { # TASK STATE CODE: exit 1 unless SLURM reports this state and exit code of a finished task
  local found
  found=$(scontrol show job "${JOB}_$1" | grep -Eo '(JobState|ExitCode)=[^ ]+' | tr '\n' ' ')
  [ "$found" = "JobState=$2 ExitCode=$3:0 " ] || { log "task ${JOB}_$1 ended with $found, not $2 $3"; exit 1; }
}
restarts_of() { scontrol show job "${JOB}_$1" | grep -Eo 'Restarts=[0-9]+' | cut -d= -f2; }
