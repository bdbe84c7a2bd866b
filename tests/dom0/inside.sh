#!/bin/bash
# Runs in the dom0 as root: records loads, and tries each way a recording can go wrong. Writes
# archives and logs to /out, one line per check to /out/checks.
T=/sys/kernel/tracing
OUT=/out
BUFFER=16384
MODE=$(sed -n 's/.*dom0test=\([a-z0-9]*\).*/\1/p' /proc/cmdline)

# -- helpers
check() { # NAME STATUS: what is checked, and whether it held
  if [ "$2" = 0 ]; then echo "ok   $1"; else echo "FAIL $1"; fi | tee -a $OUT/checks
}

says() { # NAME PATTERN COMMAND...: refused by exit code 2, one sentence that has PATTERN
  local name=$1 pattern=$2 code; shift 2
  "$@" > $OUT/said 2>&1; code=$?
  sed "s/^/     | /" $OUT/said
  [ $code = 2 ] && grep -q -E -- "$pattern" $OUT/said && ! grep -q Traceback $OUT/said
  check "$name" $?
}

tracefs() { # everything of tracefs that a recording could change
  local name
  for name in kprobe_events dynamic_events uprobe_events set_event set_ftrace_filter tracing_on \
      trace_clock buffer_size_kb current_tracer trace_options; do
    echo "== $name"; cat $T/$name
  done
  echo "== instances"; ls -R $T/instances | head -50; cat $T/instances/*/tracing_on
  echo "== events"; ls $T/events; cat $T/events/mine/enable
}

same() { # NAME: tracefs and the processes are as they were
  tracefs > $OUT/tracefs.now
  diff $OUT/tracefs.before $OUT/tracefs.now; check "$1: tracefs is as it was" $?
  ! pgrep -x xentrace > /dev/null; check "$1: no xentrace runs" $?
}

record() { # NAME LOAD OPTION...: a recording of a load, packed as /out/NAME.tar.zst
  local name=$1 load=$2; shift 2
  echo "--- $name"
  replay record start --dir /root/$name --buffer-kb $BUFFER "$@" 2>&1 | tee $OUT/$name.start
  check "$name: start" ${PIPESTATUS[0]}
  $load > $OUT/$name.load 2>&1; check "$name: the load ran" $?
  replay record stop --dir /root/$name 2>&1 | tee $OUT/$name.stop
  check "$name: stop" ${PIPESTATUS[0]}
  mkdir -p $OUT/$name.files; cp /root/$name/{kprobes.txt,ftrace-stats,kprobe_profile} $OUT/$name.files 2> /dev/null
  replay record collect -o $OUT/$name.tar.zst --dir /root/$name 2>&1; check "$name: collect" $?
  ls -l /root/$name
  same "$name"
}

# -- loads
load() { python3 /dom0/load.py ${1:-1} ${2:-600} $3; }
together() { load 2 300 & load 3 300; wait $!; }
small() { load 5 800 1,1,2,3,5; }
large() { load 6 400 16,48,96,200; }
pauses() { for seed in 11 12 13 14 15; do load $seed 120; sleep 0.5; done; }
first() { modprobe xen-gntdev && modprobe xen-gntalloc limit=4096 && load; }
target() { # dom0's memory target goes down and up again while pages are mapped
  load 4 300 & local beside=$!
  for mib in 1100 1000 1200; do xl mem-set 0 $mib || return; sleep 2; done
  wait $beside && grep . /sys/devices/system/xen_memory/xen_memory0/info/current_kb
}
guest() { # the tools map a new domain's pages
  printf '%s\n' 'name="guest"' 'type="pv"' 'memory=128' "kernel=\"$(ls /boot/vmlinuz-*)\"" \
    > /root/guest.cfg
  for one in 1 2 3; do xl create -p /root/guest.cfg && xl destroy guest || return; done
}

# -- the machine
modprobe -a xen-evtchn xen-privcmd xenfs
mount -t xenfs xenfs /proc/xen
if [ -e /proc/xen/xsd_port ]; then
  mkdir -p /run/xen /var/lib/xenstored /var/log/xen
  $(ls /usr/lib/xen-*/bin/oxenstored | head -1) --pid-file /run/xenstored.pid
  $(ls /usr/lib/xen-*/bin/xen-init-dom0)
  $(ls /usr/lib/xen-*/bin/xenconsoled) --pid-file /run/xenconsoled.pid
fi
xl info > $OUT/xl-info; xl list
cat /sys/hypervisor/guest_type
TIMEFORMAT="     %R s"
time replay record plan > $OUT/plan; check "plan" $?
umount $T 2> /dev/null; umount /sys/kernel/debug/tracing 2> /dev/null
umount /sys/kernel/debug 2> /dev/null
says "no tracefs" "no tracefs here.*mount -t tracefs" replay record start --dir /root/none
mount -t tracefs nodev $T
# what others have set up, and must find again
echo 'p:mine/other vfs_read' >> $T/kprobe_events
mkdir $T/instances/mine; echo 0 > $T/instances/mine/tracing_on; echo 1 > $T/events/mine/enable
if [ ! -e /proc/xen/xsd_port ]; then
  tracefs > $OUT/tracefs.before
  says "no Xen" "does not run on Xen" replay record start --dir /root/none
  same "no Xen"
  [ ! -e /root/none ]; check "no Xen: nothing is left behind" $?
  check "end" 0; exit
fi
tracefs > $OUT/tracefs.before

# -- what is refused
cd /
says "not root" "run as root" setpriv --reuid=65534 --regid=65534 --clear-groups \
  replay record start --dir /tmp/none
says "stop without a start" "no recording is under way" replay record stop --dir /root/none
same "refusals"

# -- recordings
record first first
record again load
for one in together small large pauses target guest; do record $one $one; done
[ "$(uname -r | cut -d. -f1,2)" = 6.1 ] || record btf load --btf
[ "$(cat /sys/hypervisor/guest_type)" = PV ] && record frames load --frames 16

complained() { ! dmesg | grep -E "BUG:|Oops|WARNING:|Call Trace"; check "the kernel complained of nothing" $?; }
[ "$MODE" = quick ] && { complained; check "end" 0; exit; }

# -- a second start, and the ways to be interrupted
replay record start --dir /root/a --buffer-kb 1024; check "start a" $?
tracefs > $OUT/tracefs.during
says "a second start" "is there already" replay record start --dir /root/b --buffer-kb 1024
says "a second start in the same folder" "under way|is there already" \
  replay record start --dir /root/a --buffer-kb 1024
says "collect too early" "still under way" replay record collect -o /root/a.tar.zst --dir /root/a
tracefs | diff $OUT/tracefs.during -; check "a second start leaves the first alone" $?
replay record stop --discard --dir /root/a; check "stop --discard" $?
same "a second start"

for signal in INT TERM HUP KILL; do
  for probes in 1 12 99; do # interrupted behind so many; 99: when the instance is there
    folder=/root/s.$signal.$probes
    replay record start --dir $folder --buffer-kb 1024 > $OUT/said 2>&1 & started=$!
    until [ $probes -le "$(grep -c :replay/ $T/kprobe_events)" -o -e $T/instances/replay ]; do
      kill -0 $started || break
    done
    kill -$signal $started; wait $started; code=$?
    echo "     $signal behind $probes probes: exit code $code: $(tail -1 $OUT/said)"
    if [ $signal = KILL ]; then
      [ $code = 137 ] && ! tracefs | diff -q $OUT/tracefs.before - > /dev/null
      check "KILL behind $probes probes: something is left" $?
      replay record stop --discard --dir $folder; check "stop --discard" $?
    else
      [ $code = 2 ] && grep -q "interrupted by SIG$signal" $OUT/said && [ ! -e $folder ]
      check "$signal behind $probes probes: said, and no folder" $?
    fi
    same "$signal behind $probes probes"
  done
done

# -- a full disk
mkdir /mnt/small; mount -t tmpfs -o size=24k small /mnt/small
says "a full disk at collect" "No space|full" replay record collect -o /mnt/small/x.tar.zst \
  --dir /root/first
[ -z "$(ls /mnt/small)" ]; check "a full disk at collect leaves nothing behind" $?
says "a full disk at start" "No space|full" \
  replay record start --dir /mnt/small/rec --buffer-kb 1024
same "a full disk at start"
umount /mnt/small; mount -t tmpfs -o size=1m small /mnt/small
replay record start --dir /mnt/small/rec --buffer-kb $BUFFER; check "start on a small disk" $?
load
says "a full disk at stop" "No space|full" replay record stop --dir /mnt/small/rec
mount -o remount,size=200m /mnt/small
replay record stop --dir /mnt/small/rec; check "stop after room was made" $?
same "a full disk at stop"
replay record collect --dir /mnt/small/rec -o $OUT/late.tar.zst; check "late: collect" $?
complained
check "end" 0
