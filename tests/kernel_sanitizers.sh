#!/usr/bin/env bash
# Build the kernel with AddressSanitizer and UndefinedBehaviorSanitizer, then run its tests and the
# fuzzer with it: `tests/kernel_sanitizers.sh [SECONDS OF FUZZING] [PYTHON]`.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-20}
python=${2:-python3}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
${CC:-gcc} -std=c99 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
    -fno-sanitize-recover=all -fPIC -shared -I"$include" \
    entitybench/_kernel.c -o "$folder/_kernel.abi3.so" -lm

export LD_PRELOAD
LD_PRELOAD=$(${CC:-gcc} -print-file-name=libasan.so):$(${CC:-gcc} -print-file-name=libubsan.so)
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1
# Stand in for the installed kernel, whatever that is.
cat > "$folder/sitecustomize.py" <<'PYTHON'
import importlib.machinery, importlib.util, pathlib, sys

path = str(pathlib.Path(__file__).with_name("_kernel.abi3.so"))
loader = importlib.machinery.ExtensionFileLoader("entitybench._kernel", path)
module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(module)
sys.modules[loader.name] = module
PYTHON
export PYTHONPATH=$folder
export ENTITYBENCH_CACHE="$folder/cache"
"$python" -m pytest -q -p no:cacheprovider tests/entitybench/test_kernel.py tests/metrics/test_fused.py
"$python" -m tests.benchmarks.fuzz --seconds "$seconds"
