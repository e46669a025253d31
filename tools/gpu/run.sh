#!/bin/sh
# Runs the suite of a bundle (tools/gpu/bundle.mjs) on this machine: no network, nothing installed. Arguments: those of
# tools/gpu/run.mjs. CUDA's libraries are looked for in lib/ of the bundle, in the system, and beside Python's PyTorch.
set -e
here=$(cd "$(dirname "$0")" && pwd)
libraries="$here/lib"
for folder in /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib /usr/local/nvidia/lib64; do
  [ -d "$folder" ] && libraries="$libraries:$folder"
done
python=${FISHY_GPU_PYTHON:-python3}
if command -v "$python" >/dev/null 2>&1; then
  # pip's packages of CUDA (nvidia-cublas, nvidia-cudnn-cu13, …) have their libraries in site-packages/nvidia/*/lib.
  found=$("$python" -c 'import glob, site, sys
roots = [*site.getsitepackages(), *[p for p in sys.path if p.endswith("site-packages")]]
print(":".join(sorted({f for r in roots for f in glob.glob(r + "/nvidia/*/lib")})))' 2>/dev/null || true)
  [ -n "$found" ] && libraries="$libraries:$found"
fi
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export ORT_DISABLE_TELEMETRY=1
exec "$here/bin/node" "$here/tools/gpu/run.mjs" "$@"
