#!/bin/sh
# tracers.sh FOLDER PROGRAM: fetches trace-cmd or xenalyze into FOLDER/bin, for the tests beside them
# (Debian, Ubuntu). Without root: packages are unpacked, not installed, and a line of shell finds a
# program its libraries. Does nothing where the program is installed.
set -eu
folder=$1 program=$2
case $program in
  trace-cmd) package=trace-cmd needs='libtrace.*' ;;
  xenalyze) package=xen-utils-common needs=none ;;
esac
PATH=$PATH:$folder/bin
command -v "$program" > /dev/null && exit
mkdir -p "$folder/bin"
cd "$folder"

own= # options for package lists of our own, where the machine has none
apt() { # apt-get or apt-cache, WORDS...
  tool=$1
  shift
  "$tool" -q=2 -o APT::Sandbox::User=root $own "$@"
}

if ! apt apt-get download --print-uris "$package" > /dev/null 2>&1; then
  trap 'rm -rf "$folder/lists" "$folder/archives"' EXIT
  mkdir -p lists/partial archives/partial
  own="-o Dir::State::lists=$folder/lists -o Dir::Cache=$folder"
  apt apt-get update
fi
apt apt-get download "$package" \
  $(apt apt-cache depends "$package" | sed -n "s/^ *Depends: \($needs\)\$/\1/p")
for archive in ./*.deb; do
  dpkg-deb -x "$archive" .
  rm "$archive"
done
found=$(find "$folder/usr" -type f -name "$program" | head -1)
libraries=$(find "$folder/usr/lib" -name 'libtraceevent.so.*' -printf '%h\n' | head -1)
libraries=${libraries:-$folder/usr/lib}
cat > "bin/$program.new" << END
#!/bin/sh
LD_LIBRARY_PATH=$libraries TRACEEVENT_PLUGIN_DIR=$libraries/traceevent/plugins exec $found "\$@"
END
chmod +x "bin/$program.new"
mv "bin/$program.new" "bin/$program"
