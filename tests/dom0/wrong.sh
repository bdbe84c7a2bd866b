# Each way a recording can go wrong; inside.sh sources this file.

refused() {
  says "not root" "run as root" setpriv --reuid=65534 --regid=65534 --clear-groups \
    replay-record start --dir /tmp/none
  says "stop without a start" "no recording is under way" replay-record stop --dir /root/none
}

twice() { # a second start
  replay-record start --dir /root/a --buffer-kb 1024; check "start a" $?
  tracefs > $OUT/tracefs.during
  says "a second start" "is there already" replay-record start --dir /root/b --buffer-kb 1024
  says "a second start in the same folder" "under way|is there already" \
    replay-record start --dir /root/a --buffer-kb 1024
  says "collect too early" "still under way" replay-record collect -o /root/a.tar.zst --dir /root/a
  tracefs | diff $OUT/tracefs.during -; check "a second start leaves the first alone" $?
  replay-record stop --discard --dir /root/a; check "stop --discard" $?
  same "a second start"
}

interrupted() {
  local signal probes folder started code
  for signal in INT TERM HUP KILL; do
    for probes in 1 12 99; do # interrupted behind so many; 99: when the instance is there
      folder=/root/s.$signal.$probes
      replay-record start --dir $folder --buffer-kb 1024 > $OUT/said 2>&1 & started=$!
      until [ $probes -le "$(grep -c :replay/ $T/kprobe_events)" -o -e $T/instances/replay ]; do
        kill -0 $started || break
      done
      kill -$signal $started; wait $started; code=$?
      echo "     $signal behind $probes probes: exit code $code: $(tail -1 $OUT/said)"
      if [ $signal = KILL ]; then
        [ $code = 137 ] && ! tracefs | diff -q $OUT/tracefs.before - > /dev/null
        check "KILL behind $probes probes: something is left" $?
        replay-record stop --discard --dir $folder; check "stop --discard" $?
      else
        [ $code = 2 ] && grep -q "interrupted by SIG$signal" $OUT/said && [ ! -e $folder ]
        check "$signal behind $probes probes: said, and no folder" $?
      fi
      same "$signal behind $probes probes"
    done
  done
}

full_disk() { # RECORDING that is there
  mkdir -p /mnt/small; mount -t tmpfs -o size=24k small /mnt/small
  says "a full disk at collect" "No space|full" replay-record collect -o /mnt/small/x.tar.zst \
    --dir "/root/$1"
  [ -z "$(ls /mnt/small)" ]; check "a full disk at collect leaves nothing behind" $?
  says "a full disk at start" "No space|full" \
    replay-record start --dir /mnt/small/rec --buffer-kb 1024
  same "a full disk at start"
  umount /mnt/small; mount -t tmpfs -o size=1m small /mnt/small
  replay-record start --dir /mnt/small/rec --buffer-kb $BUFFER; check "start on a small disk" $?
  load
  says "a full disk at stop" "No space|full" replay-record stop --dir /mnt/small/rec
  mount -o remount,size=200m /mnt/small
  replay-record stop --dir /mnt/small/rec; check "stop after room was made" $?
  same "a full disk at stop"
  replay-record collect --dir /mnt/small/rec -o $OUT/late.tar.zst; check "late: collect" $?
}
