#!/bin/bash
# Records a real dom0: Xen and Linux of a Debian suite, started by QEMU in software (no KVM).
#
#   tests/dom0/run.sh [SUITE] [MODE]     bookworm: Xen 4.17, Linux 6.1; trixie: 4.20, 6.12
#
# MODE  pv      x86, stock QEMU
#       pvh     x86; QEMU with svm-double-inject.patch, which is built first (12 minutes, 2 GB)
#       arm64   stock QEMU; REGIONS=0: Xen tells no unused regions, so that the balloon serves all
#       native  x86 without Xen, where a recording must be refused
#
# LOADS="first storm low ..." names what is recorded, one archive each; they are functions in
# loads.sh. SEED=N is that of storm, low and long; storm:N has one of its own, so that
# LOADS="storm:1 storm:2" makes two. long makes 10^6 allocator calls: run it by
# LOADS=long MEMORY=1536 BUFFER=300000 CHECKS=quick. MEMORY is the dom0's in MiB, BUFFER the ring
# buffer's KiB per CPU, STORM has options of storm.py, LONG is how often calls.py maps an area.
# CHECKS=quick makes the recordings alone, and IMPORT=no leaves the archives unread. With
# CLOCK=instructions (pv) the machine's time does not pass with the host's, but by 2 ns for each
# instruction: what a recorded call takes is then how many it executes, and the same load takes the
# same time again. Its processors then take turns, and one that was woken waits for up to a tenth of
# a second; TURNS=50 ends a turn after 50 us. RUN=NAME keeps the results in build/dom0/NAME.
#
# POOL=0 (x86 with Xen): the same kernel leaves unpopulated_init() out, so that its pool has no
# resource to take pages from and passes each call on to the balloon, as on Arm without regions:
# what a kernel without CONFIG_XEN_UNPOPULATED_ALLOC does. LOADS=paced, once with POOL=0 and once
# without, makes two recordings of one list of requests; dense is another. See `make pairs`.
# KERNEL=built: the dom0's kernel is built first, from the distribution's source package (kernel.sh:
# on all processors, 5 GB); with POOL=0 it then lacks CONFIG_XEN_UNPOPULATED_ALLOC.
#
# Needs root, Debian, some 8 GB below build/dom0, and the packages qemu-system-x86 or
# qemu-system-arm, mmdebstrap, e2fsprogs, kmod, cpio, xz-utils and zstd. Debian's packages come from
# this machine's own apt sources. Exit code 1 if a check in the dom0, an import or a verification
# fails.
set -u -o pipefail
suite=${1:-bookworm} mode=${2:-pv}
here=$(cd "$(dirname "$0")" && pwd) top=$(cd "$(dirname "$0")/../.." && pwd)
case $suite in
  bookworm) xen=4.17 ;;
  trixie) xen=4.20 ;;
  *) echo "$suite: expected bookworm or trixie"; exit 2 ;;
esac
case ${KERNEL:=debian} in
  debian | built) ;;
  *) echo "KERNEL=$KERNEL: expected debian or built"; exit 2 ;;
esac
arch=amd64 memory=1280 many="bursts=8 steps=20" program=qemu-system-x86_64
usual="first again together small large pauses target guest storm low block"
case $mode in
  pv) usual+=" frames"; [ $suite = bookworm ] || usual+=" btf" ;;
  pvh) many="bursts=5 steps=15 pages=4000" ;;
  arm64) arch=arm64 memory=1024 many="bursts=8 steps=25" program=qemu-system-aarch64
    usual="first again together small large pauses target storm low" ;;
  native) usual="" ;;
  *) echo "$mode: expected pv, pvh, arm64 or native"; exit 2 ;;
esac
LOADS=${LOADS:-$usual} SEED=${SEED:-1} MEMORY=${MEMORY:-$memory} BUFFER=${BUFFER:-65536}
STORM=${STORM:-$many} CHECKS=${CHECKS:-all} CLOCK=${CLOCK:-host} REGIONS=${REGIONS:-1}
LONG=${LONG:-500000} POOL=${POOL:-1} TURNS=${TURNS:-}
GUEST_SECONDS=${GUEST_SECONDS:-40} MODE=$mode
name=$suite-$mode
[ "$REGIONS" = 0 ] && name+=-noregions
[ "$CLOCK" = instructions ] && name+=-instructions
[ "$POOL" = 0 ] && name+=-nopool
[ "$KERNEL" = built ] && name+=-built
work=$top/build/dom0/$suite-$arch run=$top/build/dom0/${RUN:-$name}
interpreter=${REPLAY_PYTHON:-$top/.venv/bin/python}
. "$here/build.sh"
. "$here/boot.sh"
. "$here/kernel.sh"
for one in $program mmdebstrap mkfs.ext4 modprobe cpio; do
  command -v $one > /dev/null || { echo "$one is missing; see the head of $0"; exit 2; }
done

verified() { # ARCHIVE: imported whole; where allocations are in it equal to its model, and replayed
  local trace=${1%.tar.zst}.arrow
  echo "=== $(basename "$1")"
  "$interpreter" -m replay import "$1" -o "$trace" --set emulated="$emulated" \
    > "${trace%.arrow}.import" &&
    "$interpreter" -m replay info "$trace" > "${trace%.arrow}.info" || return
  grep -E '^(records|imported|skipped|besides)' "${trace%.arrow}.import"
  grep -q '^alloc ' "${trace%.arrow}.info" || return 0 # guest in a PV dom0
  "$interpreter" -m replay verify "$trace" &&
    "$interpreter" -m replay run "$trace" > "${trace%.arrow}.run"
}

told() { # ARCHIVE: what it is of, beside it
  local base=${1%.tar.zst} load xen_version
  load=${base##*/} xen_version=$(sed -n 's/^xen_version *: //p' "$run/out/xl-info")
  cat > "$base.md" << END
# $name: $load

- dom0: $(cut -d' ' -f1,3 "$run/out/uname"), Xen $xen_version, $MEMORY MiB
- machine: \`$(sed "s#$top/##g" "$run/command")\`
- loads of this boot, in this order, from tests/dom0/loads.sh: $LOADS, SEED=$SEED where none stands
- STORM="$STORM", LONG="$LONG", BUFFER=$BUFFER (KiB per CPU)
- repeat: \`make dom0 SUITE=$suite MODE=$mode REGIONS=$REGIONS CLOCK=$CLOCK CHECKS=$CHECKS
  POOL=$POOL KERNEL=$KERNEL TURNS=$TURNS LOADS="$LOADS" SEED=$SEED MEMORY=$MEMORY BUFFER=$BUFFER\`

What the load said, and the balloon's statistics:

$(cat "$base".{before,load} 2> /dev/null | sed 's/^/    /')
END
}

main() {
  local failed=0 archive
  mkdir -p "$run"
  root && chosen_kernel && image && boot ||
    { echo "FAIL: no dom0 was run, see $run/serial.log"; exit 1; }
  grep '^FAIL' "$run/out/checks" && failed=1
  grep -q '^ok   end' "$run/out/checks" ||
    { echo "FAIL: the dom0 did not come to the end"; failed=1; }
  for archive in "$run"/out/*.tar.zst; do
    [ -e "$archive" ] || break
    told "$archive"
    [ "${IMPORT:-yes}" = no ] || verified "$archive" || { echo "FAIL: $archive"; failed=1; }
  done
  echo "$(grep -c '^ok' "$run/out/checks") checks held in the dom0," \
    "$(grep -c '^FAIL' "$run/out/checks") did not"
  exit $failed
}

main
