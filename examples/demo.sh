#!/bin/sh
# The demo of the README: build examples/parallel with nothing but Brickyard, twice, look at the image, and run it.
# Needs no Docker, no network and no root. Usage: demo.sh [BRICKYARD] [OUT]
set -eu
cd "$(dirname "$0")/.."
brickyard=${1:-brickyard}
out=${2:-demo-out}
case $out in /*) ;; *) out=$PWD/$out ;; esac
export BRICKYARD_ROOT="${BRICKYARD_ROOT:-$out/root}"

if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold='' plain=''; fi
say() { printf '\n%s==> %s%s\n' "$bold" "$*" "$plain"; }
seconds() { awk "BEGIN { printf \"%.2f s\", $2 - $1 }"; }
now() { date +%s.%N; }

build() {
    started=$(now)
    "$brickyard" build --progress plain -t parallel \
        --build-context "base=oci-layout://$out/base" \
        --metadata-file "$out/metadata.json" \
        -o "type=oci,tar=false,dest=$out/image" \
        examples/parallel
    took=$(seconds "$started" "$(now)")
}

rm -rf "$out/image" "$out/bundle" "$out/root"
mkdir -p "$out"

say "A base image from this machine's own programs: no registry is asked for anything"
"$brickyard" base make "$out/base"

say "Four stages that sleep for five seconds each, and one that takes a file from each"
build
first=$took
say "The same once more: nothing changed, so nothing runs"
build
second=$took

digest=$(sed -n 's/.*"containerimage.digest": "\([^"]*\)".*/\1/p' "$out/metadata.json")
say "The image, an OCI layout in $out/image"
echo "digest       $digest"
echo "first build  $first (20 s of sleep, 5 s on the longest path)"
echo "second build $second"

say "Its command runs, and shows the file of each stage"
# crun refuses some machines with both versions of cgroups, which runc takes.
runtime=$(command -v crun || command -v runc || true)
if grep -qs . /sys/fs/cgroup/unified/cgroup.controllers && command -v runc >/dev/null; then runtime=$(command -v runc); fi
if [ "$(id -u)" -eq 0 ] && command -v umoci >/dev/null && [ -n "$runtime" ]; then
    echo "(unpacked by umoci, run by ${runtime##*/})"
    umoci unpack --image "$out/image:latest" "$out/bundle"
    # A container of its own name, without a terminal.
    sed -i 's/"terminal": true/"terminal": false/' "$out/bundle/config.json"
    "$runtime" run --bundle "$out/bundle" "brickyard-demo-$$"
    rm -rf "$out/bundle"
else
    echo "(by Brickyard's own executor: umoci with crun or runc, and root, would do it too)"
    printf 'FROM image\nRUN cat /one.txt /two.txt /three.txt /four.txt\n' |
        "$brickyard" build --no-cache --progress plain --build-context "image=oci-layout://$out/image" -
fi
