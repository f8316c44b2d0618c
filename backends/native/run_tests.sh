#!/bin/sh
# The C library's own tests: as released, under address and undefined-behaviour sanitizers, under the thread sanitizer.
# Small thresholds make ordinary sizes take the paths of large ones (threads, non-temporal stores).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
small='LNB_STREAM_BYTES=65536;LNB_AHEAD_BYTES=30000;LNB_ELEMENTS_PER_THREAD=256'

build() { # folder, then options of cmake
    folder=$top/build/native-$1
    shift
    cmake -S "$here" -B "$folder" -DLNB_TESTS=ON -DLNB_EXAMPLES=ON "$@" >"$folder.log" 2>&1 &&
        cmake --build "$folder" -j "$jobs" >>"$folder.log" 2>&1 || { cat "$folder.log" >&2; exit 1; }
}

mkdir -p "$top/build"

echo "== release"
build release
"$top/build/native-release/test_native" 1
"$top/build/native-release/standalone" >/dev/null

# Only objects of one target may hold that target's registers: anything else would crash on an older processor.
if command -v objdump >/dev/null && [ "$(uname -m)" = x86_64 ]; then
    echo "== registers"
    find "$top/build/native-release" -name '*.o' | grep -E '/(lnbench_native|lnb_baseline_f(32|64))\.dir/' | while read -r object; do
        if objdump -d --no-show-raw-insn "$object" | grep -qE '%[yz]mm[0-9]'; then
            echo "$object uses ymm or zmm registers" >&2
            exit 1
        fi
    done
fi

echo "== address and undefined-behaviour sanitizers"
build address -DLNB_SANITIZE=address,undefined "-DLNB_TUNE=$small"
"$top/build/native-address/test_native" 1
"$top/build/native-address/fuzz_native" 1000 "${LNB_SEED:-1}"

echo "== thread sanitizer"
build thread -DLNB_SANITIZE=thread "-DLNB_TUNE=$small"
# Some kernels randomise addresses more than the sanitizer's runtime can map.
plain=
if command -v setarch >/dev/null && setarch "$(uname -m)" -R true 2>/dev/null; then plain="setarch $(uname -m) -R"; fi
$plain "$top/build/native-thread/test_native" 1
$plain "$top/build/native-thread/fuzz_native" 200 "${LNB_SEED:-1}"

echo "native tests passed"
