# The kernels of KERNEL=built, for tests/dom0/run.sh, which sources this file and sets suite, arch,
# work, here and POOL: the source package of the root's own kernel, in the distribution's
# configuration without the drivers of other machines and with what kernel.config changes. The two
# kernels, of POOL=1 and POOL=0, differ in CONFIG_XEN_UNPOPULATED_ALLOC alone.

MACHINE="virtio_pci virtio_mmio virtio_blk ext4 xen-evtchn xen-privcmd xenfs xen-gntdev xen-gntalloc
  xen-blkback xen-blkfront"

chosen_kernel() { [ "$KERNEL" = debian ] || built_kernel; }

built_kernel() { # once each: a copy of the root file system with that kernel in place of its own
  local plain=$work built=$work-built name=pool
  [ "$POOL" = 0 ] && name=nopool
  work=$built/$name
  [ -e "$work/built" ] && return
  echo "building the kernel $name with all processors, see $built/log"
  rm -rf "$work"; mkdir -p "$built/objects" "$work" && cp -a "$plain/root" "$work/root" || return
  (cd "$built" && source_of "$plain" && configured "$plain" && made) > "$built/log" 2>&1 ||
    { echo "it was not built, see $built/log"; return 1; }
  touch "$work/built"
}

source_of() { # ROOT: the package that its kernel was built from, unpacked as source
  [ -e source/complete ] && return
  local version name
  version=$(grep -aom1 'Debian [0-9][^ ]*' "$1"/root/boot/vmlinuz-* | cut -d' ' -f2)
  name=linux-source-$(cut -d. -f1,2 <<< "$version")
  rm -rf source; mkdir -p apt/lists/partial source
  set -- -q -o APT::Sandbox::User=root -o Dir::State::lists="$PWD/apt/lists" \
    -o Dir::Etc::sourcelist="$(work=$1 sources)" -o Dir::Etc::sourceparts=/dev/null
  apt-get install -y -q --no-install-recommends gcc libc6-dev make bc flex bison libelf-dev \
    libssl-dev xz-utils || return
  apt-get "$@" update && apt-get "$@" download "$name=$version" && dpkg-deb -x "$name"_*.deb . &&
    tar -C source --strip-components=1 -xf "usr/src/$name.tar.xz" &&
    rm -r "$name"_*.deb usr apt && touch source/complete
}

configured() { # ROOT: the distribution's, with the emulated machine's modules, and kernel.config
  local module
  cp "$1"/root/boot/config-* objects/.config
  { echo Module Size Used by
    for module in $MACHINE; do
      modprobe -d "$1/root" -S "$(work=$1 kernel)" --show-depends "$module"
    done | sed -n 's#^insmod .*/##p' | sed 's/\.ko.*//; y/-/_/; s/$/ 1 0/' | sort -u
  } > objects/modules
  make -C source O=../objects LSMOD="$PWD/objects/modules" localmodconfig < /dev/null &&
    cat "$here/kernel.config" >> objects/.config || return
  [ "$POOL" = 0 ] && echo '# CONFIG_XEN_UNPOPULATED_ALLOC is not set' >> objects/.config
  make -C source O=../objects olddefconfig
  grep -q '^CONFIG_XEN_UNPOPULATED_ALLOC=y' objects/.config
  [ $? = "$POOL" ] && { echo "the configuration is not that of POOL=$POOL"; return 1; }
  return 0
}

made() { # the kernel in objects, into the root file system
  local root=$work/root release
  nice -n 19 make -C source O=../objects -j "$(nproc)" bzImage modules || return
  release=$(cat objects/include/config/kernel.release)
  rm -rf "$root"/usr/lib/modules/* "$root"/boot/{vmlinuz,config,System.map}-*
  make -C source O=../objects INSTALL_MOD_PATH="$root/usr" INSTALL_MOD_STRIP=1 modules_install
  rm -f "$root/usr/lib/modules/$release"/{build,source}
  cp objects/arch/x86/boot/bzImage "$root/boot/vmlinuz-$release" &&
    cp objects/.config "$root/boot/config-$release" &&
    cp objects/System.map "$root/boot/System.map-$release" && depmod -b "$root" "$release"
}
