#!/usr/bin/env bash
# All checks that need a GPU, in one command: the tests that are marked gpu, then the benchmark tables (docs/speed.md).
#
#   scripts/gpu_suite.sh [--wheels FOLDER] [--minutes 9] [--dry-run] OUT
#
# OUT gets at most 8 files: packages.json, tests-*.json and CSV tables. A part whose file exists is skipped, so the same
# command continues after --minutes are over (exit code 75), or after a call was cut off. Needs torch with CUDA,
# transformers and peft; other packages can come from the wheels in FOLDER (scripts/gpu_wheels.sh collects them on a
# machine with a network). Nothing is downloaded. --dry-run does the same on a CPU, at tiny sizes.
set -euo pipefail
wheels='' minutes=9 dry='' out=''
while (($#)); do
  case $1 in
    --wheels) wheels=$(realpath "$2"); shift 2 ;;
    --minutes) minutes=$2; shift 2 ;;
    --dry-run) dry=yes; shift ;;
    -*) sed -n 's/^# \{0,1\}//p' "$0" | sed -n 3,4p >&2; exit 2 ;;
    *) out=$1; shift ;;
  esac
done
[[ $minutes =~ ^[0-9]+$ ]] || { echo "gpu_suite.sh: --minutes $minutes: accepted: a whole number" >&2; exit 2; }
[[ -n $out ]] || { echo "gpu_suite.sh: name the folder of the results: scripts/gpu_suite.sh OUT" >&2; exit 2; }
mkdir -p "$out"
out=$(realpath "$out")
end=$((SECONDS + minutes * 60))
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false SDSBENCH_CACHE=$work/cache
mkdir "$work/site"
if [[ -n $wheels ]]; then
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" "$wheels"/*.whl
fi
"$python" setup.py --quiet egg_info --egg-base "$work/site" # entry points and version, as if sdsbench were installed
PYTHONPATH=$PYTHONPATH:$work/site

# part FILE COMMAND ...: run the command, which writes FILE into $work/part, and keep FILE in $out.
part() {
  local file=$1 left=$((end - SECONDS)) code=0
  shift
  if [[ -e $out/$file ]]; then echo "== $file: done before"; return; fi
  if ((left < 20)); then echo "== $file: no time is left; the same command continues here"; exit 75; fi
  echo "== $file: $*"
  rm -rf "$work/part"
  mkdir "$work/part"
  timeout --kill-after=10 "$left" "$@" || code=$?
  if ((code == 124 || code == 137)); then echo "== $file: cut off by --minutes $minutes; the same command goes on with it"; exit 75; fi
  if [[ ! -e $work/part/$file ]]; then echo "== $file: failed with code $code" >&2; failed=yes; return; fi
  mv "$work/part/$file" "$out/$file"
}

"$python" -m scripts.gpu_suite packages "$work/packages.json" ${dry:+--dry-run} || exit 3
if [[ ! -e $out/packages.json ]]; then
  cp "$work/packages.json" "$out/packages.json"
elif ! cmp -s "$work/packages.json" "$out/packages.json"; then
  echo "gpu_suite.sh: $(basename "$out") holds parts of another device, code or packages: name an empty folder" >&2
  exit 2
fi
failed=''
if [[ -n $dry ]]; then
  device=cpu dtype=float32 training='tests/methods/test_gradients.py tests/training/test_optimizer.py'
  runs=tests/runs/test_device.py
  model=smollm2_135m steps=(--model micro --batch 2 --rank 4 --steps 1 --contestants lora,peft_lora)
  memory=(--batch 1 --length 16 --rank 4 --methods lora) passes=(--examples 2 --length 16 --rank 4 --cuts 1,2 --rounds 1)
  group=(--model micro --runs 2 --rounds 1 --batch 2)
  answers=(--limit 4 --chunk 2 --max-new-tokens 4 --peer-batch 1) subject=micro
else
  device=cuda dtype=bfloat16 training='tests/methods tests/training' runs='tests/runs tests/evaluation tests/cli'
  model=llama3.2_3b subject=$model
  steps=(--model $model --batch 4 --max-length 768 --rank 32 --steps 20 --warmup 5
    --contestants lora,dora,lora_pro,lora_xs,lora_sb,sds_lora,peft_lora,peft_dora)
  memory=(--batch 4 --length 768 --rank 32) passes=(--examples 32 --length 512 --rank 32 --cuts 1,4,16,32)
  group=(--model smollm2_135m --runs 8 --rounds 10)
  answers=(--limit 200 --chunk 100 --max-new-tokens 128 --batch 64 --peer-batch 1,16,64)
fi
for name in training runs; do
  # shellcheck disable=SC2086 # a list of folders
  progress=$out/.tests-$name.jsonl # one line a test, so that a call that is cut off repeats none
  part "tests-$name.json" "$python" -m scripts.gpu_suite tests "$work/part/tests-$name.json" "$progress" ${!name} \
    ${dry:+--dry-run}
  if [[ -e $out/tests-$name.json ]]; then rm -f "$progress"; fi
done
common=(--device "$device" --dtype "$dtype" --out "$work/part")
rank=$([[ -n $dry ]] && echo r4-b2 || echo r32-b4)
part "steps-$subject-$device-$dtype-$rank.csv" "$python" -m benchmarks.steps "${common[@]}" "${steps[@]}" --no-plot
part "memory-$model-$device-$dtype.csv" "$python" -m benchmarks.memory "${common[@]}" --model "$model" "${memory[@]}"
part "passes-$model-$device-$dtype.csv" "$python" -m benchmarks.passes "${common[@]}" --model "$model" "${passes[@]}"
part "side-by-side-${group[1]}-$device-${group[3]}-t2.csv" "$python" -m benchmarks.side_by_side "${common[@]}" "${group[@]}"
where=$([[ -n $dry ]] || echo -cuda-float32) peer=$([[ -n $dry ]] && echo 1 || echo best)
part "evaluation-micro$where-peer$peer.csv" "$python" -m benchmarks.evaluation --model micro --device "$device" \
  --out "$work/part" "${answers[@]}"
if [[ -n $failed ]]; then echo "some parts failed: the same command tries them again" >&2; exit 1; fi
if failures=$(grep -L '"failures": {}' "$out"/tests-*.json) && [[ -n $failures ]]; then
  echo "tests failed, named in $failures" >&2
  exit 1
fi
echo "all parts are in $(basename "$out"): $(ls "$out" | tr '\n' ' ')"
