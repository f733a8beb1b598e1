# run.sh: run a command inside a machine: exit code, output, arguments and signals are the command's own.
#
# The command joins the machine's cgroup tree (lab.service, delegated to us and otherwise idle) and then its namespaces, as a child of
# this shell's process. A transient unit would instead expand $ in arguments, refuse bytes that are not UTF-8, and end whatever the
# command leaves behind, which would hide what the tests look for.
# shellcheck shell=bash

# What systemd-nspawn takes from everything else in the machine.
readonly WITHOUT=-sys_time,-sys_module,-sys_rawio,-syslog,-mac_admin,-mac_override,-wake_alarm,-block_suspend,-sys_pacct,-ipc_lock,-perfmon,-bpf,-checkpoint_restore,-audit_read

verb_as() { # PERSON [-t] -- CMD …
  local person=${1:-} uid
  [ -n "$person" ] || die "as whom? lab as PERSON -- CMD" 2
  shift
  uid=$(uid_of "$person")
  ENV=(XDG_RUNTIME_DIR="/run/user/$uid" SSH_AUTH_SOCK="/run/lab-agent/$person/socket")
  run_in desk --as "$person" "$@"
}

verb_exec() { # MACHINE [--as ACCOUNT] [-t] -- CMD …
  [ -n "${1:-}" ] || die "where? lab exec MACHINE -- CMD" 2
  ENV=()
  run_in "$@"
}

run_in() { # MACHINE [--as ACCOUNT] [-t] -- CMD …   with ENV
  local machine=$1 account=root terminal=
  shift
  need_machine "$machine"
  while [ "${1:-}" != -- ]; do
    case ${1:-} in
      --as) account=${2:?--as ACCOUNT}; shift 2 ;;
      -t) terminal=y; shift ;;
      *) die "unexpected \"${1:-}\": put -- before the command" 2 ;;
    esac
  done
  shift
  [ $# -gt 0 ] || die "no command after --" 2
  init_of "$machine"
  [ -n "$INIT" ] || die "$machine is off: lab start $machine"
  account_in "$machine" "$account"
  local dir
  for dir in "${CGROUPS[@]}"; do
    dir=$dir/pim-lab/$LAB/$machine/payload
    [ ! -d "$dir/system.slice/lab.service" ] || dir=$dir/system.slice/lab.service
    echo "$BASHPID" >"$dir/cgroup.procs"
  done
  [ -z "$terminal" ] || set -- script -q -e -c "$(printf '%q ' "$@")" /dev/null
  umask 022
  ulimit -Sn 1024
  exec nsenter -t "$INIT" -a setpriv --reuid="$account" --regid="$GID" --init-groups --inh-caps=-all --bounding-set=$WITHOUT --reset-env \
    env -C "$HOME_DIR" LANG=C.UTF-8 ${terminal:+SHELL=/bin/bash TERM="${TERM:-xterm}"} "${ENV[@]}" "$@"
}

# account_in MACHINE ACCOUNT: sets GID and HOME_DIR from the passwd file there
account_in() {
  local name gid home rest
  while IFS=: read -r name _ _ gid rest; do
    [ "$name" = "$2" ] || continue
    home=${rest#*:}
    GID=$gid HOME_DIR=${home%:*}
    [ -d "/proc/$INIT/root$HOME_DIR" ] || HOME_DIR=/
    return
  done <"/proc/$INIT/root/etc/passwd"
  die "no account \"$2\" on $1"
}
