# Root file systems, initramfs and disk images of tests/dom0/run.sh, which sources this file and
# sets: suite xen arch mode work run here top.

sources() { # apt's Debian sources of this machine, for $suite
  local file=/etc/apt/sources.list.d/debian.sources mine
  [ -e $file ] || file=/etc/apt/sources.list
  mine=$(. /etc/os-release && echo "$VERSION_CODENAME")
  sed "s/\b$mine\b/$suite/g" $file > "$work/${file##*/}"
  echo "$work/${file##*/}"
}

root() { # once per suite and architecture
  [ -e "$work/built" ] && return
  local packages=linux-image-$arch,xen-hypervisor-$xen-$arch,xen-utils-$xen,xenstore-utils,python3
  packages+=,busybox-static,kmod,procps,iproute2,zstd,util-linux,mount,diffutils,base-files,bash
  packages+=,coreutils,grep,sed,mawk,tar,gzip,findutils,libc-bin,dash
  rm -rf "$work"; mkdir -p "$work"
  # unpacked only: no program of it is run here, which may be of another architecture
  mmdebstrap --quiet --variant=extract --architectures=$arch --include=$packages \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --setup-hook='cd "$1"; for d in bin sbin lib lib64; do mkdir -p usr/$d; ln -s usr/$d $d; done' \
    "$suite" "$work/root" "$(sources)" || return
  depmod -b "$work/root" "$(kernel)" && ln -sfn mawk "$work/root/usr/bin/awk" && touch "$work/built"
}

kernel() { ls "$work/root/usr/lib/modules"; } # the release's name

initramfs() { # FILE INIT MODULE...: busybox, INIT, and the modules in the order of loading
  local file=$1 init=$2 stage module path place=10; shift 2
  stage=$(mktemp -d "$run/initramfs.XXXX"); mkdir "$stage"/{bin,proc,sys,dev,new,modules}
  cp "$work/root/usr/bin/busybox" "$stage/bin/" && cp "$here/$init" "$stage/init" || return
  chmod 755 "$stage/init"; [ -z "${EXTRA:-}" ] || cp -a "$EXTRA"/. "$stage/"
  for module; do
    modprobe -d "$work/root" -S "$(kernel)" --show-depends "$module" || return
  done | sed -n 's/^insmod //p' | awk '!seen[$1]++ { print $1 }' > "$stage/order"
  while read -r path; do
    place=$((place + 1)) module=$stage/modules/$place-${path##*/}
    case $path in
      *.xz) xz -dc "$path" > "${module%.xz}" ;;
      *.zst) zstd -qdc "$path" > "${module%.zst}" ;;
      *) cp "$path" "$module" ;;
    esac
  done < "$stage/order"
  (cd "$stage" && find . | cpio -o -H newc -R 0:0 --quiet) | gzip -1 > "$file"
  rm -r "$stage"
}

guest() { # FILE: the guests' initramfs; in a PVH dom0 with Python, since its guests grant pages
  local file root=$work/root EXTRA=
  if [ "$MODE" = pvh ]; then
    EXTRA=$(mktemp -d "$run/python.XXXX")
    python "$EXTRA" && cp "$here/grants.py" "$EXTRA/" || return
  fi
  initramfs "$1" guest xen-blkfront xen-gntalloc || return
  [ -z "$EXTRA" ] || rm -r "$EXTRA"
}

python() { # FOLDER: the root's Python and its libraries
  local root=$work/root version file
  version=$(basename "$root"/usr/bin/python3.[0-9]*)
  mkdir -p "$1/usr/lib" && cp "$root/usr/bin/$version" "$1/python3" || return
  for file in $(chroot "$root" ldd "/usr/bin/$version" | grep -o '/[^ ]*'); do
    mkdir -p "$1${file%/*}"; cp "$root$file" "$1$file" || return
  done
  mkdir -p "$1/usr/lib/$version" && cd "$root/usr/lib/$version" && # small: xl maps every page
    cp -r ./*.py collections encodings "$1/usr/lib/$version/" && cd - > /dev/null
}

recorder() { # ROOT: the recorder as it stands
  mkdir -p "$1/usr/local/bin" &&
    (cd "$top" && "$interpreter" -m replay.record.bundle "$1/usr/local/bin/replay-record") \
      > /dev/null
}

image() { # the root file system with the recorder, the loads and the settings as a disk image
  local root=$work/root one
  recorder "$root" || return
  rm -rf "$root/dom0"; mkdir -p "$root"/{dom0,out,proc,sys,dev,run,tmp,root,mnt}
  cp "$here"/{init,block,inside.sh,checks.sh,loads.sh,wrong.sh,*.py} "$root/dom0/"
  chmod 755 "$root"/dom0/{init,block}
  for one in MODE MEMORY SEED STORM LONG BUFFER LOADS CHECKS GUEST_SECONDS; do
    printf '%s=%q\n' $one "${!one}"
  done > "$root/dom0/settings"
  initramfs "$run/initrd" initramfs virtio_pci virtio_mmio virtio_blk ext4 || return
  guest "$root/dom0/guest.initrd" || return
  rm -f "$run/disk.img"; truncate -s 6G "$run/disk.img"
  mkfs.ext4 -q -F -d "$root" "$run/disk.img"
}
