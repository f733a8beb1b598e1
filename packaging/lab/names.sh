# names.sh: who and what a lab has, and where its things are. Every other file reads this one; it starts nothing.
# shellcheck shell=bash disable=SC2034
LAB=${LAB:-pim}
REPO=${HERE%/packaging/lab}
LAB_CACHE=${LAB_CACHE:-$REPO/.cache/lab}
STATE=/run/pim-lab/$LAB     # the lab's files: one directory per machine, and:
DISKS=$STATE/disks          # …the machines' trees: a tmpfs mounted in the holder's mount namespace only

PEOPLE=(alice erin bob carol gwen dave frank mallory)
FIRST_UID=1001              # people's uids, in that order, the same on every machine
GATEWAY=10.77.0.1           # every lab has its own network namespace, so all use the same addresses

# The unified hierarchy is where processes are counted and killed; on a hybrid machine systemd's own v1 tree goes along.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  CGROUPS=(/sys/fs/cgroup)
else
  CGROUPS=(/sys/fs/cgroup/unified /sys/fs/cgroup/systemd)
fi
CGROUP=${CGROUPS[0]}/pim-lab/$LAB

die() { # WHAT [CODE]: say it and give up
  echo "lab: $1" >&2
  exit "${2:-1}"
}

need_root() {
  [ "$EUID" = 0 ] || die "machines need root: sudo $0"
  [[ $LAB =~ ^[a-z][a-z0-9-]{0,30}$ ]] || die "a lab's name is lower case letters, digits and dashes, not \"$LAB\"" 2
}

# address_of MACHINE: brokers from .11, hosts from .21, desk .200
address_of() {
  case $1 in
    desk) echo 10.77.0.200 ;;
    db1) echo 10.77.0.21 ;;
    web1) echo 10.77.0.22 ;;
    h*) echo 10.77.0.$((20 + ${1#h})) ;;
    b*) echo 10.77.0.$((10 + ${1#b})) ;;
  esac
}

# kind_of MACHINE: broker, host or desk
kind_of() {
  case $1 in
    desk) echo desk ;;
    b[0-9]*) echo broker ;;
    *) echo host ;;
  esac
}

# tier_of MACHINE: the label an operator gives it at enrolment, if any
tier_of() {
  case $1 in
    db*) echo db ;;
    web*) echo web ;;
  esac
}

uid_of() { # PERSON
  local i
  for i in "${!PEOPLE[@]}"; do
    [ "${PEOPLE[i]}" = "$1" ] && echo $((FIRST_UID + i)) && return
  done
  die "nobody here is called $1: ${PEOPLE[*]}" 2
}

need_machine() { # MACHINE: it is one of this lab's
  [ -d "$STATE" ] || die "lab $LAB is not up: $0 up"
  [[ $1 =~ ^[a-z0-9]+$ && -d $STATE/machines/$1 ]] || die "lab $LAB has no machine \"$1\": $(machines | tr '\n' ' ')" 2
}

machines() { # one per line, brokers first
  [ ! -f "$STATE/order" ] || cat "$STATE/order"
}

# init_of MACHINE: sets INIT to the pid of its init, or to nothing when it is off
init_of() {
  INIT=
  { read -r INIT <"$CGROUP/$1/payload/init.scope/cgroup.procs"; } 2>/dev/null || INIT=
}
