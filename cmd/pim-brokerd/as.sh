#!/bin/sh
# as PERSON COMMAND…: the command as one of this dev deployment's people. What pim-ssh keeps for them stays beside this file, so the
# deployment that you joined yourself, if any, is left alone.
set -eu
umask 077
dir=$(dirname "$(readlink -f "$0")")
if [ $# -lt 2 ] || [ ! -f "$dir/keys/$1.pub" ]; then
  echo "usage: $0 PERSON COMMAND…, with one of these people:" >&2
  for key in "$dir"/keys/*.pub; do basename "$key" .pub >&2; done
  exit 2
fi
person=$1
shift
export XDG_CONFIG_HOME="$dir/people/$person/config" XDG_STATE_HOME="$dir/people/$person/state" XDG_RUNTIME_DIR="$dir/people/$person/run"
unset SSH_AUTH_SOCK PIM_SSH_CONFIG PIM_SSH_BROKER
mkdir -p "$XDG_RUNTIME_DIR"
[ -d "$XDG_STATE_HOME" ] || pim-ssh -q join "$dir/chain" --person "$person" --key "$dir/keys/$person" >/dev/null
exec "$@"
