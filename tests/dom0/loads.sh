# The loads of a dom0's recordings, by name; inside.sh sources this file. before_NAME runs ahead of
# NAME's recording, with_NAME are the recorder's options. Settings: MODE MEMORY SEED STORM LONG.

BALLOON=/sys/devices/system/xen_memory/xen_memory0
BLKBACK=/sys/module/xen_blkback/parameters

load() { python3 /dom0/load.py "${1:-1}" "${2:-600}" $3 $4; }
again() { load; }
btf() { load; }
frames() { load; }
with_btf=--btf
with_frames="--frames 16"
together() { load 2 300 & load 3 300; wait $!; }
small() { load 5 800 1,1,2,3,5; }
large() { load 6 400 16,48,96,200; }
pauses() { for seed in 11 12 13 14 15; do load $seed 120; sleep 0.5; done; }
first() { # with the loading of the modules
  modprobe xen-gntdev && modprobe xen-gntalloc && grant_more && load
}

grant_more() { echo 16384 > /sys/module/xen_gntalloc/parameters/limit; }

# -- the balloon
memory_target() { # MIB; xl mem-set 0 aborts in libxl of Xen 4.20 on Arm
  if [ "$MODE" = arm64 ]; then
    xenstore-write /local/domain/0/memory/target $(($1 * 1024))
  else
    xl mem-set 0 "$1"
  fi
}

balloon() { # the balloon's statistics in one line
  (cd $BALLOON && grep . target_kb info/current_kb info/low_kb info/high_kb | tr '\n' ' '); echo
}

settled() { # until the balloon no longer moves
  local now before=
  for _ in $(seq 60); do
    sleep 1; now=$(cat $BALLOON/info/current_kb); [ "$now" = "$before" ] && return; before=$now
  done
}

moves() { # LESS...: so many MiB less than at the start, one after the other
  local less
  for less; do memory_target $((MEMORY - less)) || return; sleep 2; balloon; done
}

target() { # dom0's memory target goes down and up again while pages are mapped
  load 4 300 & local beside=$!
  moves 180 280 80 && wait $beside
}

before_low() { # in mid-life: areas held, pages on the balloon's list
  load 7 200; rm -f /root/give*
  python3 /dom0/hold.py /root/give 0.7 1 5 64 128 300 2 11 250 & holder=$!
  until [ -e /root/give.ready ]; do sleep 0.2; kill -0 $holder || return; done
  memory_target $((MEMORY - MEMORY / 8)) && settled && balloon
}

low() { # the areas from before are given back, pages mapped, the target moved, by the seed
  RANDOM=$SEED
  load $((SEED + 7)) 700 & local beside=$!
  touch /root/give; balloon
  for _ in 1 2 3 4 5 6 7; do moves $((4 + RANDOM % (MEMORY / 5))) || return; done
  wait $beside && wait $holder; local status=$?
  memory_target "$MEMORY"; settled; balloon
  return $status
}

# -- one list of requests, whoever serves them: one task asks for the next when it has the last. The
# rests let the balloon thread finish, so that what it gives back is in the recording.
dense() { # as fast as it can
  load 21 500 && load 22 800 1,1,2,3,5 && load 23 120 16,48,96,200 && pauses && sleep 3 &&
    held 0.01 && sleep 3 && load 24 300 && sleep 3 && load 25 1 1
}

paced() { # up to 40 ms between any two calls
  load 31 8 1,2,4,8 && sleep 3 && load 32 450 1,1,1,2,4,8,11,32,64,128 0.04 &&
    load 33 450 1,1,2,3,5 0.04 && load 34 100 16,48,96,200 0.04 && sleep 3 && held 0.04 &&
    sleep 3 && load 35 1 1
}

held() { # PAUSE: more pages at once than a section of memory has
  touch /root/go; python3 /dom0/hold.py /root/go "$1" $(printf '300 %.0s' $(seq 120))
}

# -- what adding a region of memory takes: two of them beside a load, and what the kernel does then,
# by probes in an instance of their own; see regions.trace
region_calls() { # [SUFFIX]: a line per call
  printf "%s$1\n" synchronize_rcu init_memory_mapping add_pages memmap_init_zone_device \
    add_memory_resource memremap_pages
}

before_regions() {
  local one
  mkdir $T/instances/regions && echo mono > $T/instances/regions/trace_clock || return
  for one in $(region_calls); do
    echo "p:regions/${one} $one" && echo "r:regions/${one}_ret $one"
  done >> $T/kprobe_events && echo 1 > $T/instances/regions/events/regions/enable
}

regions() {
  local one
  load 21 250 && sleep 2 && held 0.01 && sleep 2 && load 25 1 1 || return
  cp $T/instances/regions/trace $OUT/regions.trace && rmdir $T/instances/regions || return
  for one in $(region_calls) $(region_calls _ret); do
    echo "-:regions/$one"
  done >> $T/kprobe_events
}

# -- many tasks
storm() { python3 /dom0/storm.py "$SEED" $STORM; }
long() { python3 /dom0/calls.py "$SEED" "$LONG"; }

# -- guests
guest() { # the tools map a new domain's pages
  for _ in 1 2 3; do
    describe guest boot && xl create -p /root/guest.cfg && xl destroy guest || return
  done
}

describe() { # NAME WORDS [DISK]: a guest's configuration
  local type=pv; [ "$MODE" = arm64 ] && type=pvh
  printf '%s\n' "name='$1'" "type='$type'" "memory=160" "kernel='$(echo /boot/vmlinuz-*)'" \
    "ramdisk='/dom0/guest.initrd'" "extra='console=hvc0 mitigations=off nokaslr $2'" \
    "on_crash='destroy'" "on_reboot='destroy'" > "/root/$1.cfg"
  [ -z "${3:-}" ] || echo "disk=['format=raw,vdev=xvda,access=w,script=/dom0/block,target=$3']" \
    >> "/root/$1.cfg"
}

drives() { # guests with block I/O, until they have ended
  local number=0 work works="mixed random buffered" device left
  [ "$MODE" = pvh ] && works="mixed random" # each takes a minute to create
  for work in $works; do
    number=$((number + 1))
    device=/dev/$(grep -l "^guest$number$" /sys/block/vd*/serial | cut -d/ -f4)
    describe "g$number" "work=$work secs=${GUEST_SECONDS:-40}" "$device"
    xl create "/root/g$number.cfg" || return
  done
  for left in $(seq 300); do
    sleep 1; xl list | grep -q '^g[123] ' || return 0
  done
  xl list; for number in 1 2 3; do xl destroy g$number; done; return 1
}

before_block() { # pages are given back after each request
  modprobe xen-blkback && echo N > $BLKBACK/feature_persistent && echo 0 > $BLKBACK/max_buffer_pages
}
block() { drives; }
before_persistent() {
  modprobe xen-blkback && echo Y > $BLKBACK/feature_persistent &&
    echo 64 > $BLKBACK/max_buffer_pages
}
persistent() { drives; }

granting_guest() { # sets GRANTS to pages of a guest, for a dom0 that cannot map its own
  local domain spans
  describe granting "work=grants pages=1024" && xl create /root/granting.cfg || return
  domain=$(xl domid granting)
  for _ in $(seq 120); do
    sleep 1
    spans=$(xenstore-read "/local/domain/$domain/data/grants" 2> /dev/null) && break
  done
  [ -n "$spans" ] && export GRANTS="$domain $spans" && echo "grants of domain $GRANTS"
}
