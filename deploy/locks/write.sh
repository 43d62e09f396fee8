#!/usr/bin/env bash
# Writes the locks: what each image installs, every package with its version and hashes. `make lock` calls it.
#   build.txt       what builds the one package without a wheel
#   base.txt        API, keeper, Flower: Python 3.11
#   worker-cpu.txt  the worker without a GPU: Python 3.11
#   worker-gpu.txt  what vLLM's own image lacks: Python 3.12, and only versions that agree with the vLLM in requirements.txt
set -euo pipefail
cd "$(dirname "$0")/../.."
uv=${UV:-uv}
# Where torch's CPU build comes from: an index that has it, or a directory with the wheel.
torch=(${TORCH_WHEELS:+--find-links "$TORCH_WHEELS"})
[ ${#torch[@]} -gt 0 ] || torch=(--index-strategy unsafe-best-match --extra-index-url "${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

lock() { # lock NAME PYTHON ARGUMENT...
  local name=$1 python=$2
  shift 2
  { echo "# Written by \`make lock\`: change requirements-*.txt instead."
    "$uv" pip compile --quiet --no-header --generate-hashes --python-version "$python" \
      --python-platform x86_64-manylinux_2_28 "$@"
  } > "$work/$name"
  mv "$work/$name" "deploy/locks/$name"
}

# 3.11 is 3.11.0: what older ones need besides does no harm.
lock build.txt 3.11 requirements-build.txt
lock base.txt 3.11 requirements-base.txt requirements-image.txt
# PyPI's torchvision and its kin are CUDA builds that break transformers beside the CPU's torch.
lock worker-cpu.txt 3.11 "${torch[@]}" --no-emit-package torchvision --no-emit-package torchaudio \
  --no-emit-package torchcodec requirements-cpu.txt requirements-image.txt
"$uv" pip compile --quiet --no-header --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
  requirements.txt requirements-image.txt > "$work/gpu-all.txt"
grep -v '^vllm' requirements.txt > "$work/gpu.in"
sed -i "s#^-r requirements#-r $PWD/requirements#" "$work/gpu.in"
lock worker-gpu.txt 3.12 --constraint "$work/gpu-all.txt" --no-annotate "$work/gpu.in" requirements-image.txt
