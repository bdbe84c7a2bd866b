#!/bin/bash
# Builds the QEMU that a PVH dom0 needs, once: bookworm's source package (7.2) with
# svm-double-inject.patch. Some 12 minutes on two cores, 1.5 GB. Needs root (build packages).
#
#   tests/dom0/qemu.sh FOLDER      prints the program's path; FOLDER/log has the build's output
set -u -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:?expected the folder to build in}" && cd "$1" && folder=$PWD || exit 2
packages="ninja-build meson pkg-config libglib2.0-dev libpixman-1-dev libfdt-dev python3-venv"
packages+=" dpkg-dev patch"

deb_src() { # bookworm's source packages, from the Debian sources of this machine, kept apart
  local sources=/etc/apt/sources.list.d/debian.sources name codename
  [ -e $sources ] || sources=/etc/apt/sources.list
  name=apt/${sources##*/} codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
  mkdir -p apt/lists/partial
  sed "s/\b$codename\b/bookworm/g; s/^Types:.*/Types: deb-src/; s/^deb /deb-src /" \
    $sources > "$name"
  set -- -q -o APT::Sandbox::User=root -o Dir::State::lists="$folder/apt/lists" \
    -o Dir::Etc::sourcelist="$folder/$name" -o Dir::Etc::sourceparts=/dev/null
  apt-get "$@" update && apt-get "$@" source --download-only qemu
}

build() {
  apt-get install -y -q --no-install-recommends $packages && deb_src || return
  rm -rf source && dpkg-source --no-check -x qemu_*.dsc source &&
    patch -d source -p1 < "$here/svm-double-inject.patch" || return
  mkdir -p build && cd build && ../source/configure --target-list=x86_64-softmmu \
    --without-default-features --enable-system --enable-tcg --enable-fdt=system --disable-docs \
    --disable-werror --disable-tools --disable-guest-agent &&
    nice ninja -j "$(nproc)" qemu-system-x86_64
}

if [ ! -x build/qemu-system-x86_64 ]; then
  echo "building QEMU with svm-double-inject.patch (some 12 minutes), see $folder/log" >&2
  (build) > log 2>&1 || { echo "QEMU was not built, see $folder/log" >&2; exit 1; }
fi
echo "$folder/build/qemu-system-x86_64"
