#!/bin/bash
# Runs in the dom0 as root: records loads, and tries each way a recording can go wrong. Writes
# archives and logs to /out, one line per check to /out/checks.
T=/sys/kernel/tracing
OUT=/out
. /dom0/settings
for one in checks loads wrong; do . /dom0/$one.sh; done

# -- the machine
modprobe -a xen-evtchn xen-privcmd xenfs
mount -t xenfs xenfs /proc/xen
if [ -e /proc/xen/xsd_port ]; then
  mkdir -p /run/xen /run/xenstored /run/lock /var/lib/xenstored /var/lib/xen /var/log/xen
  store=oxenstored
  [ "$MODE" != arm64 ] || { store=xenstored; modprobe xen-gntdev; } # the other does not run
  $(ls /usr/lib/xen-*/bin/$store) --pid-file /run/xenstored.pid
  $(ls /usr/lib/xen-*/bin/xen-init-dom0)
  $(ls /usr/lib/xen-*/bin/xenconsoled) --pid-file /run/xenconsoled.pid
fi
uname -a > $OUT/uname; xl info > $OUT/xl-info; xl list
cat /sys/hypervisor/guest_type
TIMEFORMAT="     %R s"
[ "$CHECKS" = quick ] || { time replay-record plan > $OUT/plan; check "plan" $?; }
umount $T 2> /dev/null; umount /sys/kernel/debug/tracing 2> /dev/null
umount /sys/kernel/debug 2> /dev/null
[ "$CHECKS" = quick ] || says "no tracefs" "no tracefs here.*mount -t tracefs" \
  replay-record start --dir /root/none
mount -t tracefs nodev $T
# what others have set up, and must find again
echo 'p:mine/other vfs_read' >> $T/kprobe_events
mkdir $T/instances/mine; echo 0 > $T/instances/mine/tracing_on; echo 1 > $T/events/mine/enable
if [ ! -e /proc/xen/xsd_port ]; then
  tracefs > $OUT/tracefs.before
  says "no Xen" "does not run on Xen" replay-record start --dir /root/none
  same "no Xen"
  [ ! -e /root/none ]; check "no Xen: nothing is left behind" $?
  check "end" 0; exit
fi
tracefs > $OUT/tracefs.before
[ "$CHECKS" = all ] && { refused; same "refusals"; }

# -- recordings
[ "$MODE" != pvh ] || { granting_guest > $OUT/grants; check "a guest grants pages" $?; }
case " $LOADS " in *" first "*) ;; *) modprobe -a xen-gntdev xen-gntalloc && grant_more ;; esac
for load in $LOADS; do record "$load"; done
[ "$CHECKS" = all ] && { twice; interrupted; full_disk "${LOADS%% *}"; }
complained
check "end" 0
