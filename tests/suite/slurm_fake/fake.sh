#!/bin/bash
# Plays sbatch, squeue, scontrol, sacct and scancel, by the name it is called by. Tasks run as processes in the background. All state is in
# files below $FAKE_SLURM; a test changes what happens by making files there (see slurm.rs).
S=$FAKE_SLURM
mkdir -p "$S/jobs"
calls() { printf '%s %s\n' "$1" "${*:2}" >>"$S/calls"; }
put() { printf '%s' "$2" >"$1.new.$BASHPID" && mv "$1.new.$BASHPID" "$1"; }
get() { cat "$1" 2>/dev/null; }
under_lock() { exec 9>"$S/lock"; flock 9; "$@"; local code=$?; exec 9>&-; return $code; }
open_tasks() { grep -lE 'PENDING|RUNNING' "$S"/jobs/*/state 2>/dev/null | wc -l; }

begins() { # may a task of this job run now?
  [ -e "$S/hold" ] && return 1
  local width running
  width=$(get "$1/width")
  running=$(grep -l RUNNING "$S/jobs/${2}_"*/state 2>/dev/null | wc -l)
  [ -n "$width" ] && [ "$running" -ge "$width" ] && return 1
  [ "$(get "$1/state")" = PENDING ] || return 1
  put "$1/state" RUNNING
}

# The life of one task.
task() {
  local job=$1 index=$2 dir="$S/jobs/$1_$2" code
  : >"$dir/alive"
  while ! under_lock begins "$dir" "$job"; do
    [ -d "$dir" ] && [ "$(get "$dir/state")" = PENDING ] || exit 0
    sleep 0.05
  done
  export SLURM_ARRAY_JOB_ID=$job SLURM_ARRAY_TASK_ID=$index SLURM_JOB_ID=$((job * 100 + index)) SLURM_RESTART_COUNT=$(get "$dir/restart")
  export SLURMD_NODENAME=n$((index % 4 + 1))
  [ -e "$S/cpus-on-node" ] && export SLURM_CPUS_ON_NODE=$(get "$S/cpus-on-node")
  bind=
  [ -e "$S/bind" ] && bind="taskset -c $index"
  setsid $bind bash "$(get "$dir/script")" >>"$(get "$dir/output")" 2>&1 9>&- &
  put "$dir/pid" $!
  wait $!
  code=$?
  [ -d "$dir" ] || exit 0
  [ "$(get "$dir/requeue")" = yes ] && { rm -f "$dir/requeue"; put "$dir/restart" $(($(get "$dir/restart") + 1)); put "$dir/state" PENDING; task "$job" "$index"; exit; }
  put "$dir/exit" "$code:0"
  case $(get "$dir/state") in
    RUNNING) put "$dir/state" "$([ $code = 0 ] && echo COMPLETED || echo FAILED)" ;;
  esac
}

case $(basename "$0") in
sbatch)
  calls sbatch "$@"
  if [ -e "$S/sbatch-says" ]; then cat "$S/sbatch-says" >&2; exit 1; fi
  for word; do
    case $word in
      --array=*) range=${word#--array=0-} ;;
      --comment=*) comment=${word#--comment=} ;;
      --job-name=*) name=${word#--job-name=} ;;
      --output=*) output=${word#--output=} ;;
      --*) ;;
      *) script=$word ;;
    esac
  done
  last=${range%%%*}
  case $range in *%*) width=${range#*%} ;; *) width= ;; esac
  if [ -e "$S/max-array" ] && [ "$last" -ge "$(get "$S/max-array")" ]; then
    echo "sbatch: error: Batch job submission failed: Invalid job array specification" >&2; exit 1
  fi
  if [ -e "$S/max-submit" ] && [ $(($(open_tasks) + last + 1)) -gt "$(get "$S/max-submit")" ]; then
    printf 'sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)\n' >&2; exit 1
  fi
  number() { job=$(($(get "$S/next" || true) + 1)); put "$S/next" "$job"; }
  under_lock number
  for index in $(seq 0 "$last"); do
    dir="$S/jobs/${job}_$index"; mkdir -p "$dir"
    put "$dir/comment" "$comment"; put "$dir/name" "$name"; put "$dir/script" "$script"; put "$dir/restart" 0; put "$dir/width" "$width"
    out=${output//%A/$job}; out=${out//%a/$index}; put "$dir/output" "${out//%%/%}"
    put "$dir/state" PENDING
    setsid "$S/bin/task" "$job" "$index" >/dev/null 2>>"$S/errors" </dev/null 9>&- &
    # Before it has a session of its own, it would be ended with this process's group.
    while [ ! -e "$dir/alive" ]; do sleep 0.01; done
  done
  if [ -e "$S/sbatch-loses-its-answer" ]; then
    rm "$S/sbatch-loses-its-answer"
    echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1
  fi
  echo "$job" ;;
task) task "$1" "$2" ;;
squeue)
  calls squeue "$@"
  [ -e "$S/squeue-fails" ] && { echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1; }
  while [ $# -gt 0 ]; do [ "$1" = -n ] && wanted=$2; shift; done
  for dir in "$S"/jobs/*/; do
    state=$(get "$dir/state")
    case $state in PENDING | RUNNING) ;; *) continue ;; esac
    [ "$(get "$dir/name")" = "$wanted" ] || continue
    key=$(basename "$dir")
    reason=$(get "$dir/reason" || true)
    echo "${key%_*}|${key#*_}|$state|${reason:-None}|$(get "$dir/comment")"
  done ;;
scontrol)
  calls scontrol "$@"
  case "$*" in
  "show config") echo "MaxArraySize            = $(get "$S/max-array" || echo 1001)" ;;
  "-o show job "*)
    [ -e "$S/forgets" ] && { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
    job=$4
    for dir in "$S/jobs/${job}_"*/; do
      [ -d "$dir" ] || continue
      key=$(basename "$dir")
      echo "JobId=$job ArrayJobId=$job ArrayTaskId=${key#*_} JobName=x JobState=$(get "$dir/state") Reason=None ExitCode=$(get "$dir/exit" || echo 0:0)"
    done ;;
  esac ;;
sacct)
  calls sacct "$@"
  get "$S/accounting" || true ;;
scancel)
  calls scancel "$@"
  signal= ; pending= ; ids=()
  for word; do
    case $word in
      --state=PENDING) pending=yes ;;
      --signal=*) signal=${word#--signal=} ;;
      --batch) ;;
      *) ids+=("$word") ;;
    esac
  done
  for id in "${ids[@]}"; do
    case $id in *_*) dirs=("$S/jobs/$id") ;; *) dirs=("$S/jobs/${id}_"*) ;; esac
    for dir in "${dirs[@]}"; do
      case $(get "$dir/state") in
      PENDING) [ -z "$signal" ] && put "$dir/state" CANCELLED ;;
      RUNNING)
        [ -n "$pending" ] && continue
        if [ -n "$signal" ]; then kill "-$signal" "$(get "$dir/pid")"; else
          put "$dir/state" CANCELLED; kill -TERM "$(get "$dir/pid")"
        fi ;;
      esac
    done
  done ;;
esac
