#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What can only be seen on a machine with an NVIDIA GPU: one line for each check of docs/gpu.md, "pass",
# "fail" or "n/a" with the reason.  Changes no setting of the GPU.  Ends within ten minutes; root.
#
#     tests/gpu_real.sh BUILD_DIRECTORY [LIBCUDA | --fake]
#
# What it needs was built with the rest (g++ alone, no CUDA toolkit).  PYTHON names a python3 with torch, if
# it is not the one in PATH.  With --fake it uses the test driver: to see that the script itself works.
set -u

build=$(realpath "${1:?the build directory}")
PATH=$PATH:/sbin:/usr/sbin
devices=/dev/nvidia
icecore=$build/bin/icecore
conformance=$build/tests/fake_cuda/gpu_conformance
buffers=$build/tests/targets/gpu_buffers
guest=$build/tests/targets/guest_gpu
unit_tests=$build/tests/icecore_unit_tests
here=$(dirname "$(realpath "$0")")
for program in "$icecore" "$conformance" "$buffers" "$guest" "$unit_tests" "$build/bench/gpu"; do
    [ -x "$program" ] || { echo "$program is not built: scripts/build release" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 2; }

# What this shell was given besides its standard streams is none of the programs' business.
for number in "/proc/$$/fd/"*; do
    number=${number##*/}
    [ "$number" -le 2 ] || [ "$number" = 255 ] || eval "exec $number>&-"
done
work=$(mktemp -d)
failures=0
target=""
fake=""
holder=""
hidden=""
free_before=0
readonly last_start_s=500  # no check begins later: one that hangs takes 90 s at most

finish() {
    end_target
    let_go
    [ -z "$hidden" ] || kill -9 "$hidden" 2>"$work/end"
    [ -z "$fake" ] || kill "$fake"
    rm -rf "$work"
}
trap finish EXIT

report() {  # ID pass|fail|n/a TEXT
    printf '%-4s %-4s  %s\n' "$1" "$2" "$3"
    [ "$2" = fail ] && failures=$((failures + 1))
    return 0
}

check() {  # ID FUNCTION ARGUMENTS...
    if [ $SECONDS -lt $last_start_s ]; then "$2" "$1" "${@:3}"
    else report "$1" n/a "no time is left"; fi
}

find_driver() {
    local folder
    ldconfig -p 2>/dev/null | awk '/libcuda\.so\.1 .*x86-64/ { print $NF; exit }' | grep . && return
    # Where containers have it.
    for folder in ${LD_LIBRARY_PATH//:/ } /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/local/nvidia/lib64; do
        [ -e "$folder/libcuda.so.1" ] && echo "$folder/libcuda.so.1" && return
    done
}

start_fake() {
    libcuda=$build/tests/fake_cuda/libcuda.so.1
    devices=$work/nvidia
    for name in 0 ctl -uvm; do head -c 4096 /dev/zero >"$devices$name"; done
    export FAKE_CUDA_DIR=$work ICECORE_GPU_DEVICES=$devices
    start_fake_memory
}

start_fake_memory() {
    : >"$work/daemon"
    "$build/tests/fake_cuda/gpud" "$work/gpud" 1:90:1024 >"$work/daemon" &
    fake=$!
    until grep -q ready "$work/daemon"; do :; done
}

# What was not saved is gone.
lose_fake_memory() {
    [ -n "$fake" ] || return 0
    kill "$fake"
    wait "$fake" 2>"$work/end"
    start_fake_memory
}

if [ "${2-}" = --fake ]; then start_fake
else libcuda=${2:-$(find_driver)}; fi
export ICECORE_LIBCUDA=$libcuda

# So many MiB; fewer where the GPU is a process.
mib() {
    if [ -n "$fake" ]; then echo $(($1 / 32)); else echo "$1"; fi
}

smi() {  # WHAT ...: of the first GPU; nothing where that cannot be told
    nvidia-smi --query-gpu="$1" --format=csv,noheader,nounits 2>"$work/end" | head -1
}

# ---- a program that uses the GPU, and talks ----------------------------------------------------------

end_target() {
    [ -n "$target" ] || return 0
    # A restored process is suspended before it is killed: some drivers hang the machine otherwise.
    call lock >"$work/end" 2>&1
    call checkpoint >>"$work/end" 2>&1
    kill -9 "$target" 2>"$work/end"
    exec 6>&- 7<&-
    target=""
}

open_pipes() {
    rm -f "$work/to" "$work/from"
    mkfifo "$work/to" "$work/from"
    exec 6<>"$work/to" 7<>"$work/from"
}

hear() {
    local line=""
    read -r -t "${1:-60}" line <&7
    echo "$line"
}

ask() {
    echo "$1" >&6
    hear
}

start() {  # COMMAND...
    end_target
    open_pipes
    "$@" <"$work/to" >"$work/from" 2>"$work/errors" 6>&- 7>&- &
    target=$!
    disown "$target"  # nobody wants to read that it was killed
    [ "$(hear)" = ready ]
}

start_buffers() { start "$buffers" "$libcuda" "$@"; }

run_icecore() { timeout -k 5 90 "$icecore" "$@"; }
snapshot() { run_icecore snapshot "$target" -o "$work/image" --no-fsync "$@" >"$work/out" 2>"$work/errors"; }

snapshot_and_kill() {
    snapshot --kill || return 1
    target=""
    lose_fake_memory
}

restore_target() {  # OPTIONS...
    open_pipes
    run_icecore restore "$work/image" --detach --pid-file "$work/pid" "$@" <"$work/to" >"$work/from" \
        2>"$work/errors" 6>&- 7>&- || return 1
    hear >"$work/end"  # the process id
    target=$(cat "$work/pid")
}

last_error() { tr '\n' ' ' <"$work/errors" | cut -c1-300; }
call() { timeout -k 1 60 "$conformance" --call "$1" "$target" "$libcuda"; }
threads_of() { (cd "/proc/$1/task" && echo *); }

devices_of() {
    local found
    found=$(find "/proc/$1/fd" -lname "$devices*" | wc -l)
    echo $((found + $(grep -c "$devices" "/proc/$1/maps")))
}

# MiB of memory of its own.
memory_of() { awk '/RssAnon/ { print int($2 / 1024) }' "/proc/$1/status"; }

# Somebody else takes all but so many MiB of what is free.
hold_all_but() {  # MIB
    free_before=$(smi memory.free)
    [ -z "$fake" ] || free_before=1024
    [ -n "$free_before" ] || return 1
    rm -f "$work/holder_in"
    mkfifo "$work/holder_in"
    : >"$work/holder"
    "$buffers" "$libcuda" quiet HOLD $((free_before - $1)) <>"$work/holder_in" >"$work/holder" 2>&1 6>&- 7>&- &
    holder=$!
    until grep -q . "$work/holder" || ! kill -0 "$holder" 2>"$work/end"; do :; done
    grep -q ready "$work/holder"
}

let_go() {
    [ -n "$holder" ] || return 0
    kill "$holder" 2>"$work/end"
    wait "$holder" 2>"$work/end"
    holder=""
    lose_fake_memory
    # The driver may take its time to free it.
    local tries
    for ((tries = 0; tries < 100; ++tries)); do
        [ "$(smi memory.free)" -ge "$free_before" ] 2>"$work/end" && break
        [ -z "$fake" ] || break
    done
}

# ---- the checks ------------------------------------------------------------------------------------------

g0() {
    if [ -z "$libcuda" ]; then
        report "$1" n/a "no libcuda.so.1 on this machine"
        exit 0
    fi
    local card="the test driver: nothing here tells of a GPU" module=""
    [ -n "$fake" ] || card=$(smi name,driver_version,uuid,persistence_mode,memory.total,pcie.link.gen.max)
    [ ! -r /proc/driver/nvidia/version ] || module=$(head -1 /proc/driver/nvidia/version | tr -s ' ')
    report "$1" pass "${card:-no nvidia-smi}; ${module:-no /proc/driver/nvidia}; kernel $(uname -r); $(awk '/CapEff/ { print $1 $2 }' /proc/self/status); $libcuda"
}

g1() {
    local said
    said=$("$unit_tests" "our declarations of CUDA are NVIDIA's" 2>&1)
    if grep -q SKIPPED <<<"$said"; then report "$1" n/a "no cuda.h when this was built"
    elif grep -q "checked against" <<<"$said"; then report "$1" pass "$(grep -o 'checked against.*' <<<"$said" | head -1)"
    else report "$1" fail "our declarations are not NVIDIA's"; fi
}

g2() {
    timeout -k 1 120 "$conformance" "$libcuda" >"$work/g2" 2>&1
    local status=$?
    [ $status = 0 ] && report "$1" pass "the driver does what the test driver does" && return
    report "$1" fail "the test driver is wrong (each line is one thing to change in it):"
    grep -v '^same' "$work/g2" | sed 's/^/           /'
}

g3() {
    local size before after memory thread listed="" answer
    size=$(mib 512)
    start_buffers quiet MIB "$size" || { report "$1" fail "$(last_error)"; return; }
    before=$(devices_of "$target")
    memory=$(memory_of "$target")
    thread=$(cat /proc/"$target"/task/*/comm | grep -E '^cuda[0-9a-f]' | head -1)
    call lock >"$work/out" && call checkpoint >"$work/out"
    after=$(devices_of "$target")
    memory=$(($(memory_of "$target") - memory))
    nvidia-smi --query-compute-apps=pid --format=csv,noheader 2>"$work/end" | grep -qx "$target" && listed=", but nvidia-smi lists it"
    call restore >"$work/out"
    call unlock >"$work/out"
    answer=$(ask check?)
    local what="$before device descriptors and mappings, $after when checkpointed$listed; $memory MiB more of its own memory then, of $((size + 9)) in the GPU; the driver's thread is \"$thread\""
    if [ "$after" = 0 ] && [ "$memory" -ge "$size" ] && [ "$answer" = ok ]; then report "$1" pass "$what"
    else report "$1" fail "$what; then: $answer"; fi
}

g4() {
    start_buffers MIB "$(mib 256)" || { report "$1" fail "$(last_error)"; return; }
    local i answer
    for ((i = 1; i <= 15; ++i)); do
        snapshot || { report "$1" fail "round $i: $(last_error)"; return; }
        answer=$(ask check?)
        [ "$answer" = ok ] || { report "$1" fail "round $i: $answer"; return; }
    done
    report "$1" pass "15 snapshots of a process that runs on; $(grep 'GPU memory' "$work/out")"
    report G12 pass "a thread was in cuStreamSynchronize and cuCtxSynchronize all the time"
}

g5() {
    start_buffers quiet || { report "$1" fail "$(last_error)"; return; }
    kill -STOP "$target"
    until grep -q '^State:.*T' "/proc/$target/status"; do :; done
    local refused="" answer
    snapshot || refused=$(grep -o "is stopped" "$work/errors")
    kill -CONT "$target"
    answer=$(ask check?)
    if [ -n "$refused" ] && [ "$answer" = ok ]; then report "$1" pass "a process that stands still is refused, and goes on"
    else report "$1" fail "$answer; $(last_error)"; fi
}

g6() {  # ID ROUNDS OPTIONS...
    local id=$1 rounds=$2 i answer threads pid
    shift 2
    for ((i = 1; i <= rounds; ++i)); do
        start_buffers MIB "$(mib 256)" || { report "$id" fail "$(last_error)"; return; }
        pid=$target
        threads=$(threads_of "$pid")
        snapshot_and_kill || { report "$id" fail "snapshot $i: $(last_error)"; return; }
        restore_target "$@" || { report "$id" fail "restore $i: $(last_error)"; return; }
        answer=$(ask check?)
        [ "$answer" = ok ] || { report "$id" fail "round $i: $answer"; return; }
        [ "$id" = G13 ] || [ "$pid $threads" = "$target $(threads_of "$target")" ] ||
            { report "$id" fail "round $i: other ids than before"; return; }
    done
    report "$id" pass "$rounds times: snapshot, kill, restore $*"
}

g6n() {
    [ -n "$fake" ] || { report "$1" n/a "only the test driver can leave out what it should save"; return; }
    start_buffers quiet || { report "$1" fail "$(last_error)"; return; }
    echo "checkpoint skip" >"$work/inject"
    snapshot_and_kill || { report "$1" fail "$(last_error)"; return; }
    restore_target || { report "$1" fail "$(last_error)"; return; }
    rm "$work/inject"
    local answer
    answer=$(ask check?)
    case "$answer" in
        wrong*) report "$1" pass "what was not saved does not come back" ;;
        *) report "$1" fail "what was not saved came back: $answer" ;;
    esac
}

g7() {
    local python said plain found=""
    for python in "${PYTHON:-python3}" /usr/bin/python3; do
        timeout 60 "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>"$work/end" && found=$python && break
    done
    [ -n "$found" ] || { report "$1" n/a "no python3 with a torch that has a GPU (PYTHON names one)"; return; }
    plain=$(timeout 90 "$found" "$here/programs/gpu_torch.py" cuda </dev/null 2>"$work/errors" | tail -30)
    start "$found" "$here/programs/gpu_torch.py" cuda || { report "$1" fail "$(last_error)"; return; }
    snapshot_and_kill || { report "$1" fail "$(last_error)"; return; }
    restore_target || { report "$1" fail "$(last_error)"; return; }
    echo go >&6
    said=$(for _ in {1..30}; do hear 20; done)
    if [ "$said" = "$plain" ] && [ -n "$plain" ]; then report "$1" pass "30 losses after the restore are those of a run without one"
    else report "$1" fail "losses differ: $(paste -d' ' <(echo "$plain") <(echo "$said") | awk '$1 != $2' | head -1)"; fi
}

g9() {
    local options=(--runs 3 --mib "$(mib 2048)") ratio
    [ -n "$fake" ] || options+=(--libcuda "$libcuda")
    timeout -k 5 150 "$build/bench/gpu" "${options[@]}" >"$work/bench" 2>"$work/errors" ||
        { report "$1" fail "$(last_error)"; return; }
    ratio=$(awk '/lazy \/ eager/ { print $5 }' "$work/bench")
    report "$1" pass "to be held against nvbandwidth, where there is one:"
    sed 's/^/           /' "$work/bench"
    if awk "BEGIN { exit !($ratio <= 1.1) }"; then report G8b pass "lazy takes $ratio times as long as eager"
    elif [ -n "$fake" ]; then report G8b n/a "lazy takes $ratio times as long as eager, of the few bytes that there are here"
    else report G8b fail "lazy takes $ratio times as long as eager"; fi
}

g10() {
    local answer
    start_buffers quiet MIB "$(mib 1024)" || { report "$1" fail "$(last_error)"; return; }
    snapshot_and_kill || { report "$1" fail "$(last_error)"; return; }
    hold_all_but "$(mib 1024)" || { report "$1" n/a "the GPU cannot be filled: $(tail -1 "$work/holder")"; let_go; return; }
    run_icecore restore "$work/image" --detach >"$work/out" 2>"$work/errors"
    let_go
    grep -q "MiB are free" "$work/errors" || { report "$1" fail "$(last_error)"; return; }
    restore_target || { report "$1" fail "afterwards: $(last_error)"; return; }
    answer=$(ask check?)
    if [ "$answer" = ok ]; then report "$1" pass "refused before the driver was asked, restored when there was room"
    else report "$1" fail "$answer"; fi
}

# What the preflight is for.  At the end: nobody knows what a driver does with the process afterwards.
g10_unprepared() {
    local first second
    start_buffers quiet MIB "$(mib 1024)" || { report "$1" fail "$(last_error)"; return; }
    call lock >"$work/out" && call checkpoint >"$work/out"
    hold_all_but "$(mib 1024)" || { report "$1" n/a "the GPU cannot be filled: $(tail -1 "$work/holder")"; let_go; return; }
    first=$(call restore)
    let_go
    second=$(call restore)
    kill -9 "$target"
    target=""
    exec 6>&- 7<&-
    if [ "${first%%,*}" = 2 ] && [ "${second%%,*}" = 304 ]; then report "$1" pass "Restore without memory: $first; once there is some: $second"
    else report "$1" fail "Restore without memory: $first; once there is some: $second; expected 2, and 304"; fi
}

g11() {
    start_buffers quiet MIB "$(mib 4096)" || { report "$1" fail "$(last_error)"; return; }
    "$icecore" snapshot "$target" -o "$work/image" --no-fsync >"$work/out" 2>"$work/errors" &
    local tool=$! helper="" before answer
    until [ -n "$helper" ] || ! kill -0 $tool 2>"$work/end"; do helper=$(pgrep -P $tool -x icecore-gpu); done
    [ -n "$helper" ] || { wait $tool; report "$1" fail "no helper; $(last_error)"; return; }
    # In the middle of the checkpoint: its memory grows.
    before=$(memory_of "$target")
    until [ "$(memory_of "$target")" -gt $((before + $(mib 500))) ] || ! kill -0 $tool 2>"$work/end"; do :; done
    kill -9 "$helper" 2>"$work/end"
    wait $tool
    answer=$(ask check?)
    if [ "$answer" = ok ]; then report "$1" pass "the helper was killed in a checkpoint; the process goes on"
    else report "$1" fail "$answer; $(last_error)"; fi
}

start_hidden() {
    end_target
    open_pipes
    "$icecore" run --gpu hidden -o "$work/hidden" --ready "file:$work/sign" -- "$buffers" "$libcuda" \
        late quiet <"$work/to" >"$work/from" 2>"$work/errors" 6>&- 7>&- &
    hidden=$!
}

end_hidden() {  # by the end of its input
    exec 6>&- 7<&-
    wait "$hidden"
    hidden=""
}

g14() {  # ID [WHAT TO ASK WHILE THERE IS NO GPU]
    local id=$1 before="" after
    rm -f "$work/hidden"* "$work/sign"
    start_hidden
    [ "$(hear)" = ready ] || { report "$id" fail "$(last_error)"; end_hidden; return; }
    [ -z "${2-}" ] || before=$(ask "$2")
    touch "$work/sign"
    until [ -e "$work/hidden" ] || grep -q "not snapshotted" "$work/errors" || ! kill -0 "$hidden" 2>"$work/end"; do :; done
    end_hidden
    [ -e "$work/hidden" ] || { report "$id" fail "$(last_error)"; return; }
    start_hidden
    after=$(ask init)
    [ "$after" = ok ] && after=$(ask check?)
    end_hidden
    if [ "$after" = ok ]; then report "$id" pass "hidden at the snapshot${before:+ ($before)}, used after the restore"
    # What a driver does whose cuInit has failed once is nowhere written: this is how to know.
    elif [ -n "$before" ]; then report "$id" n/a "before: $before; after: $after: cuInit must not be called while GPUs are hidden"
    else report "$id" fail "$after $(last_error)"; fi
}

g15() {
    start_buffers quiet managed || { report "$1" n/a "no managed memory here"; return; }
    if snapshot; then report "$1" fail "managed memory was not refused"
    elif grep -q "managed memory" "$work/errors" && [ "$(ask check?)" = ok ]; then report "$1" pass "managed memory: refused by name"
    else report "$1" fail "$(last_error)"; fi
}

g15_mig() {
    [ "$(smi mig.mode.current)" = Enabled ] || { report "$1" n/a "the GPU is not divided (MIG)"; return; }
    start_buffers quiet || { report "$1" fail "$(last_error)"; return; }
    if snapshot; then report "$1" fail "this driver can save a part of a GPU (MIG)"
    elif grep -q "MIG;" "$work/errors" && [ "$(ask check?)" = ok ]; then report "$1" pass "MIG: refused by name"
    else report "$1" fail "$(last_error)"; fi
}

g15_mps() {
    pgrep -x nvidia-cuda-mps >"$work/end" || { report "$1" n/a "no MPS on this machine"; return; }
    start_buffers quiet || { report "$1" fail "$(last_error)"; return; }
    if snapshot; then report "$1" fail "this driver can save a process that uses MPS"
    elif grep -q "MPS" "$work/errors" && [ "$(ask check?)" = ok ]; then report "$1" pass "MPS: refused by name"
    else report "$1" fail "$(last_error)"; fi
}

g16() {
    start_buffers quiet MIB "$(mib 4096)" || { report "$1" fail "$(last_error)"; return; }
    local victim=$target answer="no snapshot"
    while kill -CONT "$victim" && kill -WINCH "$victim"; do :; done 2>"$work/end" &
    local storm=$!
    snapshot && answer=$(ask check?)
    kill $storm
    wait $storm 2>"$work/end"
    if [ "$answer" = ok ]; then report "$1" pass "SIGCONT and SIGWINCH without pause"
    else report "$1" fail "$answer; $(last_error)"; fi
}

g17() {
    start_buffers quiet || { report "$1" fail "$(last_error)"; return; }
    call lock >"$work/out"
    report "$1" pass "descriptors of a locked process: $(find "/proc/$target/fd" -type l -printf "%l\n" | sed 's/:.*//' | sort | uniq -c | awk '{ printf "%s %s, ", $2, $1 }')"
    call unlock >"$work/out"
}

g18() {
    local answer
    head -c 5242880 /dev/urandom >"$work/weights"
    start "$guest" "$libcuda" "$work/weights" MIB "$(mib 1024)" || { report "$1" fail "$(last_error)"; return; }
    snapshot_and_kill || { report "$1" fail "$(last_error)"; return; }
    restore_target || { report "$1" fail "$(last_error)"; return; }
    answer=$(ask check?)
    if [ "$answer" = ok ]; then report "$1" pass "buffers of libicecore_guest; $(ask statistics?)"
    else report "$1" fail "$answer"; fi
}

check G0 g0
check G1 g1
check G2 g2
check G3 g3
check G4 g4
check G5 g5
check G6 g6 3 --eager
check G6n g6n
check G7 g7
check G8 g6 2 --lazy
check G9 g9
check G10 g10
check G11 g11
check G13 g6 1 --pids namespace
check G14a g14
check G14c g14 init
check G15 g15
check G15m g15_mig
check G15s g15_mps
check G16 g16
check G17 g17
check G18 g18
check G10r g10_unprepared
echo "$failures failed, in $SECONDS s"
[ "$failures" = 0 ]
