#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What can only be seen on a machine with an NVIDIA GPU: one line for each check of docs/gpu.md, "pass",
# "fail" or "n/a" with the reason.  Changes no setting of the GPU.  Takes a few minutes; root.
#
#     tests/gpu_real.sh BUILD_DIRECTORY [LIBCUDA | --fake]
#
# What it needs was built with the rest (g++ alone, no CUDA toolkit).  With --fake it uses the test driver:
# to see that the script itself works.
set -u

build=$(realpath "$1")
PATH=$PATH:/sbin:/usr/sbin
libcuda=${2:-$(ldconfig -p 2>/dev/null | awk '/libcuda\.so\.1 .*x86-64/ { print $NF; exit }')}
devices=/dev/nvidia
icecore=$build/bin/icecore
[ -x "$icecore" ] || icecore=$(find "$build" -name icecore -type f -perm -u+x | head -1)
conformance=$build/tests/fake_cuda/gpu_conformance
buffers=$build/tests/targets/gpu_buffers
guest=$build/tests/targets/guest_gpu
unit_tests=$build/tests/icecore_unit_tests
work=$(mktemp -d)
failures=0
target=""
fake=""
exec 251>&-

finish() {
    end_target
    [ -z "$fake" ] || kill "$fake"
    rm -rf "$work"
}
trap finish EXIT

report() {  # ID pass|fail|n/a TEXT
    printf '%-4s %-4s  %s\n' "$1" "$2" "$3"
    [ "$2" = fail ] && failures=$((failures + 1))
    return 0
}

start_fake() {
    libcuda=$build/tests/fake_cuda/libcuda.so.1
    devices=$work/nvidia
    for name in 0 ctl -uvm; do head -c 4096 /dev/zero >"$devices$name"; done
    export FAKE_CUDA_DIR=$work ICECORE_GPU_DEVICES=$devices ICECORE_LIBCUDA=$libcuda
    : >"$work/daemon"
    "$build/tests/fake_cuda/gpud" "$work/gpud" 1:90:1024 >"$work/daemon" &
    fake=$!
    until grep -q ready "$work/daemon"; do :; done
}

# So many MiB; fewer where the GPU is a process.
mib() {
    if [ -n "$fake" ]; then echo $(($1 / 32)); else echo "$1"; fi
}
[ "$libcuda" != --fake ] || start_fake

# MiB that are free in the first GPU; nothing where that cannot be told.
free_memory() {
    nvidia-smi --query-gpu=memory.free --format=csv,noheader,nounits 2>"$work/end" | head -1
}

# ---- a program that uses the GPU, and talks ----------------------------------------------------------

end_target() {
    [ -n "$target" ] || return 0
    # A restored process is suspended before it is killed: some drivers hang the machine otherwise.
    "$conformance" --call lock "$target" "$libcuda" >"$work/end" 2>&1
    "$conformance" --call checkpoint "$target" "$libcuda" >>"$work/end" 2>&1
    kill -9 "$target" 2>"$work/end"
    exec 8>&- 9<&-
    target=""
}

open_pipes() {
    rm -f "$work/to" "$work/from"
    mkfifo "$work/to" "$work/from"
    exec 8<>"$work/to" 9<>"$work/from"
}

hear() {
    local line=""
    read -r -t "${1:-120}" line <&9
    echo "$line"
}

ask() {
    echo "$1" >&8
    hear "${2:-120}"
}

start_target() {
    end_target
    open_pipes
    "${program:-$buffers}" "$libcuda" "$@" <"$work/to" >"$work/from" 2>"$work/errors" 8>&- 9>&- &
    target=$!
    disown "$target"  # nobody wants to read that it was killed
    [ "$(hear)" = ready ]
}

start_target_without_driver() {  # ARGUMENTS...
    end_target
    open_pipes
    "$program" "$@" <"$work/to" >"$work/from" 2>"$work/errors" 8>&- 9>&- &
    target=$!
    disown "$target"  # nobody wants to read that it was killed
    [ "$(hear)" = ready ]
}

restore_target() {  # OPTIONS...
    open_pipes
    "$icecore" restore "$work/image" --detach --pid-file "$work/pid" "$@" <"$work/to" >"$work/from" \
        2>"$work/errors" 8>&- 9>&- || return 1
    hear 5 >"$work/end"  # the process id
    target=$(cat "$work/pid")
}

snapshot() { "$icecore" snapshot "$target" -o "$work/image" --no-fsync "$@" >"$work/out" 2>"$work/errors"; }
last_error() { tr '\n' ' ' <"$work/errors" | cut -c1-160; }
call() { "$conformance" --call "$1" "$target" "$libcuda"; }

devices_of() {
    local found
    found=$(find "/proc/$1/fd" -lname "$devices*" | wc -l)
    echo $((found + $(grep -c "$devices" "/proc/$1/maps")))
}

# ---- the checks ------------------------------------------------------------------------------------------

g0() {
    if [ -z "$libcuda" ]; then
        report G0 n/a "no libcuda.so.1 on this machine"
        exit 0
    fi
    local card
    if [ -n "$fake" ]; then card="the test driver: nothing here tells of a GPU"
    else card=$(nvidia-smi --query-gpu=name,driver_version,persistence_mode,memory.total --format=csv,noheader 2>&1 | head -1); fi
    report G0 pass "$card; kernel $(uname -r); $(grep -o 'NVRM.*Kernel Module[^(]*' /proc/driver/nvidia/version 2>/dev/null | tr -s ' ' | head -1)"
}

g1() {
    local said
    said=$("$unit_tests" "our declarations of CUDA are NVIDIA's" 2>&1)
    if grep -q SKIPPED <<<"$said"; then report G1 n/a "no cuda.h when this was built"
    elif grep -q "checked against" <<<"$said"; then report G1 pass "$(grep -o 'checked against.*' <<<"$said" | head -1)"
    else report G1 fail "our declarations are not NVIDIA's"; fi
}

g2() {
    "$conformance" "$libcuda" >"$work/g2" 2>&1
    local status=$?
    [ $status = 0 ] && report G2 pass "the driver does what the test driver does" && return
    report G2 fail "the test driver is wrong (each line is one thing to change in it):"
    grep -v '^same' "$work/g2" | sed 's/^/           /'
}

g3() {
    start_target quiet || { report G3 fail "$(last_error)"; return; }
    local before after thread
    before=$(devices_of "$target")
    local memory
    memory=$(awk '/RssAnon/ { print $2 }' "/proc/$target/status")
    thread=$(cat /proc/"$target"/task/*/comm | grep -E '^cuda[0-9a-f]' | head -1)
    call lock >"$work/out" && call checkpoint >"$work/out"
    after=$(devices_of "$target")
    memory=$((($(awk '/RssAnon/ { print $2 }' "/proc/$target/status") - memory) / 1024))
    call restore >"$work/out"
    call unlock >"$work/out"
    local answer
    answer=$(ask check?)
    if [ "$after" = 0 ] && [ "$answer" = ok ]; then
        report G3 pass "$before device descriptors and mappings, 0 when checkpointed; $memory MiB more of its own memory then, of 9 in the GPU; the driver's thread is \"$thread\""
    else
        report G3 fail "$after of $before device descriptors and mappings left; then: $answer"
    fi
}

g4() {
    start_target MIB "$(mib 256)" || { report G4 fail "$(last_error)"; return; }
    local i answer
    for ((i = 1; i <= 10; ++i)); do
        snapshot || { report G4 fail "round $i: $(last_error)"; return; }
        answer=$(ask check?)
        [ "$answer" = ok ] || { report G4 fail "round $i: $answer"; return; }
    done
    report G4 pass "10 snapshots of a process that runs on; $(grep 'GPU memory' "$work/out")"
    report G12 pass "a thread was in cuStreamSynchronize all the time"
}

g6() {  # ID OPTIONS...
    local id=$1 i answer
    shift
    for ((i = 1; i <= 3; ++i)); do
        start_target MIB "$(mib 256)" || { report "$id" fail "$(last_error)"; return; }
        snapshot --kill || { report "$id" fail "snapshot $i: $(last_error)"; return; }
        target=""
        restore_target "$@" || { report "$id" fail "restore $i: $(last_error)"; return; }
        answer=$(ask check?)
        [ "$answer" = ok ] || { report "$id" fail "round $i: $answer"; return; }
    done
    report "$id" pass "3 times: snapshot, kill, restore $*"
}

g10() {
    start_target quiet MIB "$(mib 1024)" || { report G10 fail "$(last_error)"; return; }
    snapshot --kill || { report G10 fail "$(last_error)"; return; }
    target=""
    local free
    free=$(free_memory)
    [ -z "$fake" ] || free=1024
    [ -n "$free" ] || { report G10 n/a "no nvidia-smi that tells how much memory is free"; return; }
    # Less is left than the image wants.  In pieces: each has to be made in its memory first.
    local others=() left=$((free - $(mib 1000) - 200)) piece
    while [ "$left" -gt 0 ]; do
        piece=$((left < 4096 ? left : 4096))
        left=$((left - piece))
        : >"$work/other"
        "$buffers" "$libcuda" quiet MIB $piece <"$work/to" >"$work/other" 2>&1 8>&- 9>&- &
        others+=($!)
        until grep -q . "$work/other" || ! kill -0 ${others[-1]} 2>"$work/end"; do :; done
        grep -q ready "$work/other" || break  # the contexts of the others are larger than thought
    done
    "$icecore" restore "$work/image" --detach >"$work/out" 2>"$work/errors"
    if grep -q "MiB are free" "$work/errors"; then report G10 pass "refused before the driver was asked"
    else report G10 fail "$(last_error)"; fi
    kill "${others[@]}" 2>"$work/end"
    wait "${others[@]}" 2>"$work/end"
}

g11() {
    start_target quiet MIB "$(mib 4096)" || { report G11 fail "$(last_error)"; return; }
    "$icecore" snapshot "$target" -o "$work/image" --no-fsync >"$work/out" 2>"$work/errors" &
    local tool=$! helper=""
    until [ -n "$helper" ] || ! kill -0 $tool 2>"$work/end"; do helper=$(pgrep -P $tool -x icecore-gpu); done
    [ -n "$helper" ] || { wait $tool; report G11 fail "$(last_error)"; return; }
    # In the middle of the checkpoint: its memory grows.
    local before
    before=$(awk '/VmRSS/ { print $2 }' "/proc/$target/status")
    until [ "$(awk '/VmRSS/ { print $2 }' "/proc/$target/status")" -gt $((before + $(mib 500) * 1000)) ] || ! kill -0 $tool 2>"$work/end"; do :; done
    kill -9 "$helper" 2>"$work/end"
    wait $tool
    local answer
    answer=$(ask check?)
    if [ "$answer" = ok ]; then report G11 pass "the helper was killed in a checkpoint; the process goes on"
    else report G11 fail "$answer; $(last_error)"; fi
}

start_hidden() {
    end_target
    open_pipes
    "$icecore" run --gpu hidden -o "$work/hidden" --ready "file:$work/sign" -- "$buffers" "$libcuda" \
        late quiet <"$work/to" >"$work/from" 2>"$work/errors" 8>&- 9>&- &
    hidden=$!
    [ "$(hear)" = ready ]
}

end_hidden() {  # by the end of its input
    exec 8>&- 9<&-
    wait "$hidden"
}

g14() {  # ID [WHAT TO ASK WHILE THERE IS NO GPU]
    local id=$1 before=""
    rm -f "$work/hidden"* "$work/sign"
    start_hidden || { report "$id" fail "$(last_error)"; return; }
    [ -z "${2-}" ] || before=$(ask "$2")
    touch "$work/sign"
    until [ -e "$work/hidden" ] || ! kill -0 "$hidden" 2>"$work/end"; do :; done
    end_hidden
    [ -e "$work/hidden" ] || { report "$id" fail "$(last_error)"; return; }
    open_pipes
    "$icecore" run --gpu hidden -o "$work/hidden" --ready "file:$work/sign" -- "$buffers" "$libcuda" \
        late quiet <"$work/to" >"$work/from" 2>"$work/errors" 8>&- 9>&- &
    hidden=$!
    local after
    after=$(ask init)
    [ "$after" = ok ] && after=$(ask check?)
    end_hidden
    if [ "$after" = ok ]; then report "$id" pass "hidden at the snapshot${before:+ ($before)}, used after the restore"
    else report "$id" fail "${before:+$before; }$after $(last_error)"; fi
}

g15() {
    start_target quiet managed || { report G15 n/a "no managed memory here"; return; }
    if snapshot; then report G15 fail "managed memory was not refused"
    elif grep -q "managed memory" "$work/errors" && [ "$(ask check?)" = ok ]; then report G15 pass "refused by name"
    else report G15 fail "$(last_error)"; fi
}

g16() {
    start_target quiet MIB "$(mib 4096)" || { report G16 fail "$(last_error)"; return; }
    local victim=$target
    while kill -CONT "$victim" && kill -WINCH "$victim"; do :; done 2>"$work/end" &
    local storm=$!
    if snapshot && [ "$(ask check?)" = ok ]; then report G16 pass "SIGCONT and SIGWINCH without pause"
    else report G16 fail "$(last_error)"; fi
    kill $storm
    wait $storm 2>"$work/end"
}

g17() {
    start_target quiet || { report G17 fail "$(last_error)"; return; }
    report G17 pass "descriptors of a process with CUDA: $(find "/proc/$target/fd" -type l -printf "%l\n" | sed 's/:.*//' | sort | uniq -c | awk '{ printf "%s %s, ", $2, $1 }')"
}

g7() {
    local python said plain
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>"$work/end" && break
        python=""
    done
    [ -n "$python" ] || { report G7 n/a "no python3 with a torch that has a GPU"; return; }
    plain=$("$python" "$(dirname "$0")/programs/gpu_torch.py" cuda </dev/null | tail -30)
    program=$python start_target_without_driver "$(dirname "$0")/programs/gpu_torch.py" cuda
    snapshot --kill || { report G7 fail "$(last_error)"; return; }
    target=""
    restore_target || { report G7 fail "$(last_error)"; return; }
    echo go >&8
    said=$(for _ in {1..30}; do hear; done)
    if [ "$said" = "$plain" ] && [ -n "$plain" ]; then report G7 pass "30 losses after the restore are those of a run without one"
    else report G7 fail "losses differ: $(paste -d' ' <(echo "$plain") <(echo "$said") | awk '$1 != $2' | head -1)"; fi
}

g9() {
    local options=(--runs 1 --mib "$(mib 1024)")
    [ -n "$fake" ] || options+=(--libcuda "$libcuda")
    if "$build/bench/gpu" "${options[@]}" >"$work/bench" 2>"$work/errors"; then
        report G9 pass "stages and their bytes per second:"
        sed 's/^/           /' "$work/bench"
    else report G9 fail "$(last_error)"; fi
}

g18() {
    head -c 5242880 /dev/urandom >"$work/weights"
    program=$guest start_target "$work/weights" MIB "$(mib 1024)" || { report G18 fail "$(last_error)"; return; }
    snapshot --kill || { report G18 fail "$(last_error)"; return; }
    target=""
    restore_target || { report G18 fail "$(last_error)"; return; }
    local answer
    answer=$(ask check?)
    if [ "$answer" = ok ]; then report G18 pass "buffers of libicecore_guest; $(ask statistics?)"
    else report G18 fail "$answer"; fi
}

g0
g1
g2
g3
g4
report G5 n/a "icecore never freezes before it locks"
g6 G6 --eager
report G6n n/a "only the test driver can leave out what it should save"
g7
g6 G8 --lazy
g9
g10
g11
g6 G13 --pids namespace
g14 G14a
g14 G14c init
g15
g16
g17
g18
echo "$failures failed"
[ "$failures" = 0 ]
