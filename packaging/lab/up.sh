# up.sh: bring a lab up as a whole, and down.
# shellcheck shell=bash
. "$HERE/machine.sh"
. "$HERE/tree.sh"
. "$HERE/pim.sh"

verb_up() {
  # Without a trap, bash forgets an interrupt that comes while it waits for a program which does not die of it.
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  local brokers=1 hosts=2 bare='' policy=$HERE/policy.yaml hybrid='' keep=''
  while [ $# -gt 0 ]; do
    case $1 in
      --brokers) brokers=${2:?}; shift 2 ;;
      --hosts) hosts=${2:?}; shift 2 ;;
      --policy) policy=$(readlink -f "${2:?}"); shift 2 ;;
      --hybrid) hybrid=${2:?}; shift 2 ;;
      --bare) bare=y; shift ;;
      --keep) keep=y; shift ;;
      *) die "lab up: what is \"$1\"? lab help" 2 ;;
    esac
  done
  [[ $brokers =~ ^[0-9]$ && $hosts =~ ^[0-9]{1,2}$ ]] || die "at most 9 brokers and 99 hosts" 2
  need_programs
  lock
  if [ -e "$STATE/ready" ]; then
    echo "lab $LAB is up already; another one: LAB=name $0 up; a fresh one: $0 down first" >&2
    return
  fi
  trap 'wreck $?' EXIT
  raze
  stake
  chmod 700 "$STATE"
  name_machines "$brokers" "$hosts" >"$STATE/order"
  plan "$bare" "$policy" "$hybrid"
  build </dev/null 9>&- &
  if ! wait $!; then
    [ -n "$keep" ] || exit 1
    trap - EXIT
    die "left as it is, for a look"
  fi
  touch "$STATE/ready"
  trap - EXIT INT TERM HUP
  kill_cgroup up
  echo "lab $LAB is up in ${SECONDS} s: $(machines | tr '\n' ' ')" >&2
}

need_programs() {
  local program
  for program in debootstrap systemd-nspawn ip ssh-keygen nsenter; do
    command -v $program >/dev/null || die "$program is not installed: make deps"
  done
}

lock() { # until this process ends; who had it before may have removed the file, then its successor counts
  LOCK=$LAB_CACHE/lab-$LAB.lock
  mkdir -p "$LAB_CACHE"
  until [ "$LOCK" -ef /dev/fd/9 ]; do
    exec 9>"$LOCK"
    flock -w 300 9 || die "another lab up or down of $LAB has run for five minutes"
  done
}

# stake: make the lab's places. A lab that goes down meanwhile may remove the empty directories above them: then once more.
stake() {
  local dir
  for dir in "$STATE/machines" "${CGROUPS[@]/%/\/pim-lab\/$LAB}"; do
    mkdir -p "$dir" || mkdir -p "$dir"
  done
}

name_machines() { # BROKERS HOSTS
  local i
  for ((i = 1; i <= $1; i++)); do echo "b$i"; done
  for ((i = 1; i <= $2; i++)); do
    case $i in 1) echo db1 ;; 2) echo web1 ;; *) echo "h$i" ;; esac
  done
  echo desk
}

# plan BARE POLICY HYBRID: write down what the build will do
plan() {
  local machine
  while read -r machine; do mkdir "$STATE/machines/$machine"; done < <(machines)
  if [ -n "$3" ]; then
    need_machine "$3"
    touch "$STATE/machines/$3/hybrid"
  fi
  if [ -z "$1" ]; then
    [ -r "$2" ] || die "no policy template $2"
    cp "$2" "$STATE/policy.yaml"
  fi
}

# build: everything that takes time, in the lab's cgroup, so that whatever interrupts `up` can end all of it
build() {
  trap - EXIT INT TERM HUP
  join_cgroup up
  ensure_tree
  [ ! -e "$STATE/policy.yaml" ] || install_layers
  hold
  within "$HERE/lab" _build lab
  [ -e "$STATE/policy.yaml" ] || return 0
  settle >"$STATE/settle.log" 2>&1 & # a job of its own: in front of || it would go on after an error
  wait $! || die "pim-ssh did not settle: $(tail -n 20 "$STATE/settle.log")"
}

# hold: start the holder
hold() {
  local pid
  ( join_cgroup holder; exec setsid unshare --mount --net sleep infinity </dev/null >/dev/null 2>&1 ) &
  pid=$!
  until [ "/proc/$pid/exe" -ef "$(type -P sleep)" ]; do
    kill -0 "$pid" 2>/dev/null || die "this machine gives no namespaces: unshare --mount --net fails"
    sleep 0.01
  done
  echo $pid >"$STATE/holder"
}

verb__build() { # lab | boot MACHINE: what must run in the holder's namespaces; layer TREE LAYERS KIND: in its own
  local machine
  case $1 in
    boot) boot "$2"; await_boot "$2"; return ;;
    layer) make_layer "${@:2}"; return ;;
  esac
  . "$HERE/furnish.sh"
  ! compgen -G "$STATE/machines/*/hybrid" >/dev/null || [ ${#CGROUPS[@]} = 2 ] || make_hybrid
  mkdir "$DISKS"
  mount -t tmpfs -o mode=755 lab "$DISKS"
  TREE=$(<"$STATE/tree")
  make_room
  make_network
  make_people_keys
  write_hosts >"$STATE/hosts"
  while read -r machine; do furnish "$machine"; done < <(machines)
  furnish_desk
  while read -r machine; do boot "$machine"; done < <(machines)
  # shellcheck disable=SC2046
  await_boot $(machines)
}

# make_room: each machine's systemd takes seven of root's inotify instances, of which there are 128; the raised limit stays
make_room() {
  local limit=/proc/sys/fs/inotify/max_user_instances
  [ "$(<$limit)" -ge 4096 ] || echo 4096 >$limit || true
}

# make_hybrid: on a machine that knows cgroup v2 only, show the holder's namespace a hybrid tree, for nspawn to pass on
make_hybrid() {
  touch "$STATE/v1"
  mount -t tmpfs lab /sys/fs/cgroup
  mkdir /sys/fs/cgroup/{unified,systemd}
  mount -t cgroup2 lab /sys/fs/cgroup/unified
  mount -t cgroup -o none,name=systemd lab /sys/fs/cgroup/systemd
  CGROUPS=(/sys/fs/cgroup/unified /sys/fs/cgroup/systemd)
  CGROUP=${CGROUPS[0]}/pim-lab/$LAB
}

# unmake_hybrid: the v1 tree lives for as long as it has a directory
unmake_hybrid() {
  # shellcheck disable=SC2016
  unshare --mount sh -c 'mount -t cgroup -o none,name=systemd lab /sys/fs/cgroup && find "/sys/fs/cgroup/pim-lab/$0" -depth -type d -exec rmdir {} +
    rmdir /sys/fs/cgroup/pim-lab' "$LAB" 2>/dev/null || true
}

verb_down() {
  [ $# = 0 ] || die "lab down takes no argument" 2
  kill_cgroup   # before the lock: an `up` under way ends here
  lock
  raze
  rm -f "$LOCK"
}

# wreck CODE: an `up` that did not get there takes away what it made
wreck() {
  trap '' INT TERM HUP
  # The build by its pid first: it may not have joined the cgroup yet. The shell would report each job it loses.
  # shellcheck disable=SC2046
  { kill -KILL $(jobs -p) || true; wait; } 2>/dev/null
  raze
  rm -f "$LOCK"
  echo "lab: $LAB is not up; nothing of it is left" >&2
  exit "$1"
}

# raze: no process, no mount, no cgroup, no file of this lab is left
raze() {
  kill_cgroup
  [ ! -e "$STATE/v1" ] || unmake_hybrid
  rm -rf "${STATE:?}"
  rmdir /run/pim-lab "${CGROUPS[@]/%/\/pim-lab}" 2>/dev/null || true
}
