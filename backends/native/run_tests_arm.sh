#!/bin/sh
# Cross-compiles the library for AArch64 and runs its tests, the NEON target included, under qemu-user.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
    if ! command -v "$tool" >/dev/null; then
        echo "$tool is missing. On Debian: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user" >&2
        exit 1
    fi
done
folder=$top/build/native-arm
mkdir -p "$top/build"
cmake -S "$here" -B "$folder" -DLNB_TESTS=ON -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc \
    '-DLNB_TUNE=LNB_STREAM_BYTES=65536;LNB_AHEAD_BYTES=30000;LNB_ELEMENTS_PER_THREAD=256' >"$folder.log" 2>&1 &&
    cmake --build "$folder" -j "$(getconf _NPROCESSORS_ONLN)" >>"$folder.log" 2>&1 || { cat "$folder.log" >&2; exit 1; }
qemu-aarch64 -L /usr/aarch64-linux-gnu "$folder/test_native" 0 neon baseline
qemu-aarch64 -L /usr/aarch64-linux-gnu "$folder/fuzz_native" 50
echo "native tests passed on AArch64 (emulated)"
