#!/bin/bash
# Records a real dom0: Xen and Linux of a Debian suite, started by QEMU in software (no KVM).
#
#   tests/dom0/run.sh [SUITE] [pv|pvh|native]   bookworm: Xen 4.17, Linux 6.1; trixie: 4.20, 6.12
#
# native is the same system without Xen, where a recording must be refused. With CLOCK=instructions
# (pv) the machine's time does not pass with the host's, but by 2 ns for each instruction: what a
# recorded call takes is then how many it executes, and the same load takes the same time again.
#
# Needs root, Debian, some 5 GB below build/dom0, and the packages qemu-system-x86, mmdebstrap and
# e2fsprogs. Debian's packages come from this machine's own apt sources, Python's by pip as set up
# here. CHECKS=quick makes the recordings alone. Exit code 1 if a check in the dom0, an import or a
# verification fails.
set -u -o pipefail
suite=${1:-bookworm} mode=${2:-pv}
here=$(cd "$(dirname "$0")" && pwd) top=$(cd "$(dirname "$0")/../.." && pwd)
work=$top/build/dom0/$suite run=$top/build/dom0/$suite-$mode bin=$top/.venv/bin
case $suite in
  bookworm) xen=4.17 python=3.11 ;;
  trixie) xen=4.20 python=3.13 ;;
  *) echo "$suite: expected bookworm or trixie"; exit 2 ;;
esac
case $mode in
  pv) xen_line="" iommu=() virtio="" limit=1800 accel=tcg ;;
  # Debian's QEMU 7.2 and 10.0 corrupt a PVH dom0's memory sooner or later (nested SVM in software):
  # QEMU=PROGRAM names a better one
  pvh) xen_line="dom0=pvh " iommu=(-device amd-iommu,intremap=on) virtio=,iommu_platform=on limit=3600
    accel=tcg,thread=single,tb-size=512 ;;
  native) iommu=() virtio="" limit=600 accel=tcg ;;
  *) echo "$mode: expected pv, pvh or native"; exit 2 ;;
esac
emulated="QEMU TCG"
if [ "${CLOCK:-host}" = instructions ]; then
  run=$run-instructions emulated="QEMU TCG, 2 ns per instruction"
  accel="tcg,thread=single -icount shift=1,sleep=off"
fi
for program in qemu-system-x86_64 mmdebstrap mkfs.ext4; do
  command -v $program > /dev/null || { echo "$program is missing; see the head of $0"; exit 2; }
done

build() { # the root file system, once per suite
  [ -e "$work/built" ] && return
  local packages=linux-image-amd64,xen-hypervisor-$xen-amd64,xen-utils-$xen,xenstore-utils
  packages+=,python3,kmod,procps,iproute2,zstd,initramfs-tools,util-linux,mount,udev,diffutils
  rm -rf "$work"; mkdir -p "$work"
  local sources=/etc/apt/sources.list.d/debian.sources mine
  [ -e $sources ] || sources=/etc/apt/sources.list
  mine=$(. /etc/os-release && echo "$VERSION_CODENAME")
  sed "s/\b$mine\b/$suite/g" $sources > "$work/${sources##*/}"
  mmdebstrap --quiet --variant=minbase --include=$packages --dpkgopt='path-exclude=/usr/share/doc/*' \
    --setup-hook='d="$1/etc/initramfs-tools"; mkdir -p "$d/conf.d"; echo MODULES=list > "$d/conf.d/dom0"' \
    --setup-hook='printf "virtio_pci\nvirtio_blk\next4\n" > "$1/etc/initramfs-tools/modules"' \
    "$suite" "$work/root" "$work/${sources##*/}" || return
  "$bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$work/root/opt/replay" \
    --python-version $python --only-binary :all: -r "$top/requirements.lock" || return
  touch "$work/built"
}

image() { # this program as it stands, in a disk image
  local root=$work/root
  rm -rf "$root/opt/replay/replay"; cp -a "$top/replay" "$root/opt/replay/replay" || return
  find "$root/opt/replay/replay" -name __pycache__ -prune -exec rm -rf {} +
  printf '%s\n' '#!/usr/bin/python3' 'import sys' 'sys.path.insert(0, "/opt/replay")' \
    'from replay.__main__ import start' 'start()' > "$root/usr/local/bin/replay"
  chmod 755 "$root/usr/local/bin/replay"
  mkdir -p "$root/dom0"; cp "$here"/{init,inside.sh,load.py} "$root/dom0/"; chmod 755 "$root/dom0/init"
  rm -f "$run/disk.img"; truncate -s 4G "$run/disk.img"
  mkfs.ext4 -q -F -d "$root" "$run/disk.img"
}

boot() { # until the dom0 powers itself off; what it wrote is in $run/out
  local linux=("$work"/root/boot/vmlinuz-*) initrd=("$work"/root/boot/initrd.img-*)
  local words="root=/dev/vda rw init=/dom0/init panic=5 nokaslr mitigations=off dom0test=${CHECKS:-all}"
  local start=(-kernel "${linux[0]}" -initrd "${initrd[0]}" -append "console=ttyS0 $words")
  if [ $mode != native ]; then
    zcat "$work"/root/boot/xen-$xen-amd64.gz > "$run/xen"
    start=(-kernel "$run/xen" -initrd "${linux[0]} console=hvc0 $words,${initrd[0]}" -append
      "${xen_line}dom0_mem=1280M,max:1280M dom0_max_vcpus=2 com1=115200,8n1 console=com1")
  fi
  rm -rf "$run/out" "$run/out.img"; truncate -s 1G "$run/out.img"
  nice -n 10 timeout $limit ${QEMU:-qemu-system-x86_64} -accel $accel -machine q35 -smp 2 -m 3072 \
    -cpu max,-smap,-rdtscp,-xsave,-avx,-avx2,-f16c,-fma -display none -vga none -nodefaults -no-reboot \
    "${start[@]}" \
    -drive "file=$run/disk.img,if=none,id=r,format=raw,snapshot=on,cache=unsafe" \
    -device virtio-blk-pci,drive=r,disable-legacy=on$virtio \
    -drive "file=$run/out.img,if=none,id=o,format=raw,cache=unsafe" \
    -device virtio-blk-pci,drive=o,disable-legacy=on$virtio ${iommu[@]+"${iommu[@]}"} \
    -serial "file:$run/serial.log" || return
  mkdir "$run/out" && tar -C "$run/out" -xf "$run/out.img"
}

verified() { # ARCHIVE: imported whole; where allocations are in it equal to its model, and replayed
  local trace=${1%.tar.zst}.arrow
  echo "=== $(basename "$1")"
  "$bin/replay" import "$1" -o "$trace" --set emulated="$emulated" | grep -E '^(records|imported|skipped|besides)' &&
    "$bin/replay" info "$trace" > "${trace%.arrow}.info" || return
  grep -q '^alloc ' "${trace%.arrow}.info" || return 0 # a new domain's pages need no call of a PV dom0
  "$bin/replay" verify "$trace" && "$bin/replay" run "$trace" > "${trace%.arrow}.run"
}

mkdir -p "$run"
build && image && boot || { echo "FAIL: no dom0 was run, see $run/serial.log"; exit 1; }
failed=0
grep '^FAIL' "$run/out/checks" && failed=1
grep -q '^ok   end' "$run/out/checks" || { echo "FAIL: the dom0 did not come to the end"; failed=1; }
for archive in "$run"/out/*.tar.zst; do
  [ $mode = native ] && break
  verified "$archive" || { echo "FAIL: $archive"; failed=1; }
done
echo "$(grep -c '^ok' "$run/out/checks") checks held in the dom0, $(grep -c '^FAIL' "$run/out/checks") did not"
exit $failed
