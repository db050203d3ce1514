#!/usr/bin/env bash
# Measures the engine on a GPU, all of it, in under ten minutes. Needs torch, numpy, pillow, pydantic and safetensors;
# no Ray, no Kafka, no network.
#
#   infra/gpu/measure.sh                  on the GPU; reports go to ./gpu-measured
#   infra/gpu/measure.sh --out FOLDER     ... to FOLDER
#   infra/gpu/measure.sh --dry-run        the same code with tiny counts on the CPU, whose figures mean nothing
#
# PYTHON names the interpreter (python3), PEER one that has anomalib, to be measured beside it (PYTHON, where it has it).
# docs/gpu.md says what the reports hold.
set -u
cd "$(dirname "$0")/../.."

out=gpu-measured
dry=
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry=1 ;;
    --out) [ $# -gt 1 ] || { echo "measure.sh: --out needs a folder" >&2; exit 2; }; shift; out=$1 ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "infra/gpu/measure.sh" >&2; exit 2 ;;
  esac
  shift
done
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

"$python" - "$dry" <<'END' || exit 2
import importlib.util, sys
missing = [name for name in ("torch", "numpy", "PIL", "pydantic", "safetensors") if not importlib.util.find_spec(name)]
if missing:
    sys.exit(f"measure.sh: {sys.executable} has no {', '.join(missing)}: "
             "pip install torch numpy pillow pydantic safetensors, or set PYTHON")
if not sys.argv[1]:
    import torch
    if not torch.cuda.is_available():
        sys.exit("measure.sh: torch finds no CUDA device here; --dry-run tries the script on the CPU")
END
[ -n "$dry" ] || nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv || true
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
peer=()
peer_python=${PEER:-$python}
if "$peer_python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("anomalib") is None)' 2>/dev/null; then
  peer=(--peer "$peer_python")
else
  echo "anomalib is not installed: measured without it (PEER=/path/to/python names an interpreter that has it)"
fi

failed=0
measure() { # name, seconds it may take (0: any), arguments of model.bench
  local name=$1 limit=$2
  shift 2
  echo "--- $name: python -m model.bench $*"
  local begun=$SECONDS
  if timeout "$limit" "$python" -m model.bench "$@" --json "$out/$name.json" 2>"$out/$name.log"; then
    echo "    $((SECONDS - begun)) s"
  else
    echo "    FAILED or longer than $limit s; the end of $out/$name.log:" >&2
    tail -n 5 "$out/$name.log" >&2
    failed=1
  fi
}

# What each may take sums up to 590 seconds; what each should take, to some 300.
if [ -n "$dry" ]; then
  tiny=(--device rehearsal --size 64 --threads 1 --repeats 1 --seconds 0.01 --products 2 --fit-steps 1)
  measure lite0 0 engine --backbone efficientnet_lite0 --batch 1 --batch 2 --replicas 1 "${tiny[@]}" "${peer[@]}"
else
  gpu=(--device cuda --seconds 0.5 --repeats 5)
  measure lite0 200 engine --backbone efficientnet_lite0 --batch 1 --batch 16 --batch 64 --replicas 1 --replicas 4 "${gpu[@]}" "${peer[@]}"
  measure wide 200 engine --backbone wide_resnet50_2 --batch 1 --batch 16 --batch 64 "${gpu[@]}" "${peer[@]}"
  measure resnet18 110 engine --backbone resnet18 --batch 64 --seconds 0.3 --repeats 3 --device cuda "${peer[@]}"
  measure fit 80 train --backbone efficientnet_lite0 --steps 100 --images 128 --device cuda
fi
reports=("$out"/*.json)
[ ! -e "${reports[0]}" ] || "$python" -m model.bench show "${reports[@]}" || failed=1
exit $failed
