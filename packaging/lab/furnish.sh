# furnish.sh: what makes the shared tree a particular machine: its name, address and keys, and what each person has on desk. Runs in the
# holder's namespaces, before the machine boots. Keys are made here and live as long as the lab.
# shellcheck shell=bash

# make_network: the bridge all machines hang on; the holder's end answers as GATEWAY
make_network() {
  ip -batch - <<NET
link set lo up
link add lab type bridge
address add $GATEWAY/24 dev lab
link set lab up
NET
}

# make_people_keys: one key each, for desk
make_people_keys() {
  local person
  mkdir -m 700 "$STATE/keys"
  for person in "${PEOPLE[@]}"; do
    ssh-keygen -q -t ed25519 -N '' -C "$person@desk" -f "$STATE/keys/$person"
  done
}

# furnish MACHINE: mounts its tree and writes what is its own
furnish() {
  local disk=$DISKS/$1 root=$DISKS/$1/root kind person layer
  kind=$(kind_of "$1")
  layer=$STATE/layers/$kind
  mkdir -p "$disk/upper" "$disk/work" "$root" "$layer" # a bare machine's layer is empty
  mount -t overlay lab -o "lowerdir=$layer:$TREE,upperdir=$disk/upper,workdir=$disk/work" "$root"
  echo "$1" >"$root/etc/hostname"
  tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
  printf 'address add %s/24 dev host0\nlink set host0 up\n' "$(address_of "$1")" >"$root/etc/lab-net"
  cp "$STATE/hosts" "$root/etc/hosts"
  ssh-keygen -q -t ed25519 -N '' -C "$1" -f "$root/etc/ssh/ssh_host_ed25519_key"
  echo "$1,$(address_of "$1") $(<"$root/etc/ssh/ssh_host_ed25519_key.pub")" >>"$STATE/known_hosts"
  if [ "$kind" = host ]; then
    for person in "${PEOPLE[@]}"; do
      cp "$STATE/keys/$person.pub" "$root/home/$person/.ssh/authorized_keys"
    done
  fi
}

# furnish_desk: everybody's key, ssh-agent and runtime directory. Call it when all other machines are furnished.
furnish_desk() {
  local root=$DISKS/desk/root person uid
  cp "$STATE/known_hosts" "$root/etc/ssh/ssh_known_hosts"
  for person in "${PEOPLE[@]}"; do
    uid=$(uid_of "$person")
    install -m 600 -o "$uid" -g "$uid" "$STATE/keys/$person" "$root/home/$person/.ssh/id_ed25519"
    install -m 644 -o "$uid" -g "$uid" "$STATE/keys/$person.pub" "$root/home/$person/.ssh/id_ed25519.pub"
    ln -s ../lab-agent@.service "$root/etc/systemd/system/multi-user.target.wants/lab-agent@$person.service"
    echo "d /run/user/$uid 0700 $person $person"
  done >"$root/etc/tmpfiles.d/lab-people.conf"
}

# write_hosts: /etc/hosts of every machine
write_hosts() {
  local machine
  echo "127.0.0.1 localhost"
  while read -r machine; do
    echo "$(address_of "$machine") $machine"
  done < <(machines)
}
