# The machine of tests/dom0/run.sh, which sources this file: QEMU's command line, and its run.

words() { # Linux's command line
  local pool=
  [ "$POOL $KERNEL" = "0 debian" ] && pool=" initcall_blacklist=unpopulated_init"
  echo "console=${1:-hvc0} loglevel=7 panic=5 nokaslr mitigations=off$pool"
}

disk() { # DEVICE SERIAL FILE OPTIONS: adds it to $line
  line+=(-drive "file=$3,if=none,id=$2,format=raw,cache=unsafe$4" -device "$1,drive=$2,serial=$2")
}

disks() { # DEVICE: the root file system, where results go, and the guests' own
  local guest
  disk "$1" root "$run/disk.img" ,snapshot=on
  rm -rf "$run/out" "$run/out.img"; truncate -s 2G "$run/out.img"; disk "$1" out "$run/out.img" ""
  for guest in 1 2 3; do
    rm -f "$run/guest$guest.img"; truncate -s 64M "$run/guest$guest.img"
    disk "$1" guest$guest "$run/guest$guest.img" ""
  done
}

x86() { # PV, PVH or no Xen
  local linux=("$work"/root/boot/vmlinuz-*) virtio=virtio-blk-pci,disable-legacy=on
  local xen_words linux_words
  line=(-machine q35 -smp 2 -m $((MEMORY + 1792))
    -cpu max,-smap,-rdtscp,-xsave,-avx,-avx2,-f16c,-fma -vga none)
  if [ $mode = native ]; then
    line+=(-kernel "${linux[0]}" -initrd "$run/initrd" -append "$(words ttyS0)")
  else
    xen_words="dom0_mem=${MEMORY}M,max:${MEMORY}M dom0_max_vcpus=2 com1=115200,8n1 console=com1"
    [ $mode = pvh ] && xen_words="dom0=pvh $xen_words"
    zcat "$work"/root/boot/xen-$xen-amd64.gz > "$run/xen"
    # unmapping a guest's image takes a PVH dom0 half a minute here, which is no stall
    linux_words="$(words) rcupdate.rcu_cpu_stall_timeout=300 nowatchdog"
    line+=(-kernel "$run/xen" -append "$xen_words" -initrd "${linux[0]} $linux_words,$run/initrd")
  fi
  if [ $mode = pvh ]; then # the dom0's devices reach its memory through the IOMMU
    line+=(-device amd-iommu,intremap=on -L /usr/share/qemu -L /usr/share/seabios)
    virtio+=,iommu_platform=on accel=tcg,thread=single,tb-size=512
    program=${QEMU:-$("$here/qemu.sh" "$top/build/dom0/qemu")} || return
  fi
  disks $virtio
}

arm64() { # Xen starts Linux, which QEMU's guest-loader puts into memory
  local xen_words="console=dtuart dtuart=/pl011@9000000 dom0_mem=${MEMORY}M"
  xen_words+=" dom0_max_vcpus=2 bootscrub=0"
  [ "$REGIONS" = 0 ] && xen_words+=" ext_regions=0"
  local linux=("$work"/root/boot/vmlinuz-*)
  line=(-machine virt,virtualization=on,gic-version=3 -cpu cortex-a57 -smp 2 -m $((MEMORY + 3072))
    -kernel "$work/root/boot/xen-$xen-arm64" -append "$xen_words"
    -device "guest-loader,addr=0x49000000,kernel=${linux[0]},bootargs=$(words)"
    -device "guest-loader,addr=0x50000000,initrd=$run/initrd")
  disks virtio-blk-device
}

boot() { # until the dom0 powers itself off; what it wrote is in $run/out
  local line accel=tcg,thread=multi began
  emulated="QEMU TCG"
  if [ $mode = arm64 ]; then arm64; else x86 || return; fi
  if [ "$CLOCK" = instructions ]; then
    emulated="QEMU TCG, 2 ns per instruction" accel="tcg,thread=single -icount shift=1,sleep=off"
    # A timer of the emulator's, of a network that nobody is on: it ends the turn of a processor.
    [ -z "$TURNS" ] || accel+=" -netdev hubport,id=turns,hubid=1
      -object filter-buffer,id=timer,netdev=turns,queue=rx,interval=$TURNS"
  fi
  line=($program -accel $accel -display none -nodefaults -no-reboot -serial "file:$run/serial.log"
    "${line[@]}")
  printf '%q ' "${line[@]}" > "$run/command"
  began=$SECONDS
  nice -n 10 timeout "${LIMIT:-5400}" "${line[@]}" || echo "QEMU's exit code: $?"
  echo "the machine ran for $((SECONDS - began)) s"
  mkdir "$run/out" && tar -C "$run/out" -xf "$run/out.img"
}
