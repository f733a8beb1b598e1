# machine.sh: the life of one machine: boot, cut, heal, kill, start, status.
#
# The lab's holder is an idle process with a mount and a network namespace of its own. The machines' trees (overlays on a tmpfs) and the
# bridge between them exist in there only; `within` runs things there. Each machine is a systemd-nspawn in its own cgroup.
# shellcheck shell=bash

within() { # CMD …: in the holder's namespaces
  nsenter -t "$(<"$STATE/holder")" -m -n -- "$@"
}

join_cgroup() { # NAME: this process moves to the lab's cgroup of that name
  local dir
  for dir in "${CGROUPS[@]}"; do
    mkdir -p "$dir/pim-lab/$LAB/$1"
    echo "$BASHPID" >"$dir/pim-lab/$LAB/$1/cgroup.procs"
  done
}

# boot MACHINE: starts it and returns at once. Runs in the holder's namespaces.
boot() {
  local hierarchy=SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
  [ ! -e "$STATE/machines/$1/hybrid" ] || hierarchy=LAB=hybrid # nspawn's own choice on a hybrid machine
  (
    exec 8>&- 9>&-
    join_cgroup "$1"
    # What nspawn leaves in /run/systemd it leaves in a tmpfs that ends with it.
    # shellcheck disable=SC2016
    exec setsid env -i PATH="$PATH" $hierarchy unshare --mount sh -c \
      'mkdir -p /run/systemd && mount -t tmpfs lab /run/systemd && exec systemd-nspawn "$@"' nspawn \
      -q -D "$DISKS/$1/root" -M "$1" --boot --network-bridge=lab --register=no --keep-unit --link-journal=no --resolv-conf=off --timezone=off \
      </dev/null >"$STATE/machines/$1/console" 2>&1
  ) &
}

# await_boot MACHINE …: until their lab.service runs
await_boot() {
  local machine dir
  local deadline=$((SECONDS + 60))
  for machine; do
    dir=$CGROUP/$machine/payload/system.slice/lab.service
    until grep -qs . "$dir/cgroup.procs"; do
      [ $SECONDS -lt $deadline ] || die "$machine did not boot: $(tail -n 5 "$STATE/machines/$machine/console")"
      sleep 0.02
    done
    [ ! -e "$STATE/machines/$machine/cut" ] || link "$machine" down
  done
}

link() { # MACHINE up|down
  within ip link set "vb-$1" "$2"
}

verb_cut() { # MACHINE [--to MACHINE]
  need_machine "${1:-}"
  if [ "${2:-}" = --to ]; then
    need_machine "${3:-}"
    mislead "$1" "$(address_of "$3")"
    return
  fi
  touch "$STATE/machines/$1/cut"
  link "$1" down
}

verb_heal() {
  need_machine "${1:-}"
  rm -f "$STATE/machines/$1/cut"
  link "$1" up
  init_of "$1"
  [ -z "$INIT" ] || nsenter -t "$INIT" -n ip neigh flush dev host0 nud permanent
}

# mislead MACHINE ADDRESS: what the machine sends there goes to a hardware address that nobody has. Neither end is told; a reboot forgets it.
mislead() {
  init_of "$1"
  [ -n "$INIT" ] || die "$1 is off: lab start $1"
  nsenter -t "$INIT" -n ip neigh replace "$2" lladdr 02:00:00:00:00:00 dev host0 nud permanent
}

verb_kill() { # MACHINE [--machine]
  local machine=${1:-}
  [ "$machine" != --machine ] || machine=${2:-}
  need_machine "$machine"
  case " $* " in
    *" --machine "*)
      link "$machine" down 2>/dev/null || true # a dead machine says no goodbye on its connections
      kill_cgroup "$machine"
      within ip link delete "vb-$machine" 2>/dev/null || true
      ;;
    *) kill_daemon "$machine" ;;
  esac
}

# daemon_of MACHINE: the units of ours that it may have, socket first
daemon_of() {
  case $(kind_of "$1") in
    broker) echo pim-brokerd.service ;;
    host) echo pim-hostd.socket pim-hostd.service ;;
    desk) die "desk has no daemon of ours" 2 ;;
  esac
}

kill_daemon() { # MACHINE
  local units
  units=$(daemon_of "$1")
  # Masked first, so that neither Restart= nor the socket brings it back. The socket's file stays, as after a crash nobody cleaned up.
  # shellcheck disable=SC2086
  on "$1" systemctl --quiet mask --runtime $units
  on "$1" systemctl kill --signal=KILL "${units##* }" 2>/dev/null || true
  # shellcheck disable=SC2086
  on "$1" systemctl stop $units 2>/dev/null || true
}

verb_start() {
  local units unit
  need_machine "${1:-}"
  init_of "$1"
  if [ -z "$INIT" ]; then
    within "$HERE/lab" _build boot "$1"
    return
  fi
  [ "$(kind_of "$1")" != desk ] || return 0
  units=$(daemon_of "$1")
  # shellcheck disable=SC2086
  on "$1" systemctl --quiet unmask --runtime $units
  for unit in $units; do
    ! on "$1" systemctl cat "$unit" >/dev/null 2>&1 || on "$1" systemctl start "$unit"
  done
}

on() { # MACHINE CMD …
  "$HERE/lab" exec "$1" -- "${@:2}"
}

# kill_cgroup [NAME]: kill -9 of everything in there, at once and for certain; NAME is a machine, or none for the whole lab
kill_cgroup() {
  local dir=$CGROUP${1:+/$1} deadline=$((SECONDS + 10))
  [ -d "$dir" ] || return 0
  echo 1 >"$dir/cgroup.kill"
  while grep -qs 'populated 1' "$dir/cgroup.events"; do
    [ $SECONDS -lt $deadline ] || die "processes in $dir survive kill -9"
    sleep 0.02
  done
  for dir in "${CGROUPS[@]}"; do
    dir=$dir/pim-lab/$LAB${1:+/$1}
    until [ ! -d "$dir" ] || find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null; do # a dying mkdir may still add one
      [ $SECONDS -lt $deadline ] || die "$dir cannot be removed"
      sleep 0.02
    done
  done
}

verb_status() {
  local json='' machine
  case "$*" in
    "") ;;
    "-o json") json=y ;;
    *) die "lab status [-o json]" 2 ;;
  esac
  while read -r machine; do
    status_of "$machine"
  done < <(machines) | if [ -n "$json" ]; then cat; else table; fi
  [ -f "$STATE/ready" ] || die "lab $LAB is not up: $0 up"
}

status_of() { # MACHINE: one JSON object
  local network=up power=off daemon=none
  [ ! -e "$STATE/machines/$1/cut" ] || network='cut'
  init_of "$1"
  if [ -n "$INIT" ]; then
    power=on
    if [ "$(kind_of "$1")" != desk ]; then
      daemon=$(daemon_of "$1")
      daemon=$(on "$1" systemctl is-active "${daemon##* }") || true
    fi
  fi
  printf '{"machine":"%s","kind":"%s","address":"%s","power":"%s","network":"%s","daemon":"%s","init":%s}\n' \
    "$1" "$(kind_of "$1")" "$(address_of "$1")" $power $network "$daemon" "${INIT:-null}"
}

table() { # of those objects
  printf '%-9s %-8s %-12s %-6s %-8s %-9s %s\n' machine kind address power network daemon init
  local line
  while IFS= read -r line; do
    [[ $line =~ ^\{.*:\"(.*)\",.*:\"(.*)\",.*:\"(.*)\",.*:\"(.*)\",.*:\"(.*)\",.*:\"(.*)\",.*:(.*)\}$ ]]
    printf '%-9s %-8s %-12s %-6s %-8s %-9s %s\n' "${BASH_REMATCH[@]:1}"
  done
}
