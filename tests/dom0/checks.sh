# What inside.sh says and compares, and its recordings: that file sources this one.

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

record() { # LOAD[:SEED]: a recording of that load, packed as /out/LOAD[-SEED].tar.zst
  local load=${1%:*} name=${1/:/-} options=with_${1%:*} SEED=$SEED
  case $1 in *:*) SEED=${1#*:} ;; esac
  echo "--- $name"
  if declare -F before_$load > /dev/null; then
    before_$load > $OUT/$name.before 2>&1; check "$name: ahead of it" $?
  fi
  replay-record start --dir /root/$name --buffer-kb $BUFFER ${!options:-} 2>&1 |
    tee $OUT/$name.start
  check "$name: start" ${PIPESTATUS[0]}
  $load > $OUT/$name.load 2>&1; check "$name: the load ran" $?
  replay-record stop --dir /root/$name 2>&1 | tee $OUT/$name.stop
  check "$name: stop" ${PIPESTATUS[0]}
  mkdir -p $OUT/$name.files
  cp /root/$name/{kprobes.txt,ftrace-stats,kprobe_profile} $OUT/$name.files 2> /dev/null
  replay-record collect -o $OUT/$name.tar.zst --dir /root/$name 2>&1; check "$name: collect" $?
  ls -l /root/$name
  same "$name"; keep
}

keep() { tar -C $OUT -cf "$OUTDISK" . && sync; } # what there is survives the end of the machine

complained() {
  ! dmesg | grep -E "BUG:|Oops|WARNING:|Call Trace"; check "the kernel complained of nothing" $?
}
