# pim.sh: pim-ssh on the lab's machines, installed from the packages that users install and set up by nothing but what its own manual
# tells people to type.
# shellcheck shell=bash

# install_layers: what each kind of machine has more than the tree they share, as an overlay: what dpkg made of our package there. Cached.
# LAB_PACKAGED says that whoever calls has made the packages.
install_layers() {
  local layers kind jobs=()
  exec 8>"$LAB_CACHE/build.lock"
  flock 8
  [ -n "${LAB_PACKAGED:-}" ] || make -s -C "$REPO" package 8>&-
  layers=$LAB_CACHE/layers-$(digest "$TREE $(<"$HERE/pim.sh") $(sha256sum <"$REPO/build/packaged")")
  if [ ! -d "$layers" ]; then
    rm -rf "$layers.part"
    for kind in broker host desk; do
      unshare --mount "$HERE/lab" _build layer "$TREE" "$layers.part" $kind 8>&- &
      jobs+=($!)
    done
    await "${jobs[@]}"
    rmdir "$layers.part"/*.made
    mv "$layers.part" "$layers"
  fi
  ln -s "$layers" "$STATE/layers"
  forget_old_layers
  exec 8>&-
}

# make_layer TREE LAYERS KIND: in a mount namespace of its own
make_layer() {
  local package root=$2/$3.made/root
  case $3 in
    broker) package=pim-ssh-broker ;;
    host) package=pim-ssh-host ;;
    desk) package=pim-ssh ;;
  esac
  mkdir -p "$2/$3.made"
  mount -t tmpfs -o mode=755 lab "$2/$3.made"
  mkdir "$2/$3.made/"{upper,work,root}
  mount -t overlay lab -o "lowerdir=$1,upperdir=$2/$3.made/upper,workdir=$2/$3.made/work" "$root"
  mount -t tmpfs lab "$root/run"
  mount -t tmpfs lab "$root/tmp"
  mount -t proc proc "$root/proc"
  cp "$REPO/build/${package}_"*.deb "$root/tmp/"
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    chroot "$root" sh -c 'dpkg --force-unsafe-io -i /tmp/*.deb' >"$2/$3.log" 2>&1 || die "$package: $(tail -n 5 "$2/$3.log")"
  umount -R "$root"
  cp -a "$2/$3.made/upper" "$2/$3"
}

# forget_old_layers: those that no lab stands on
forget_old_layers() {
  local layers lab
  for layers in "$LAB_CACHE"/layers-*; do
    for lab in /run/pim-lab/*/layers; do
      [ ! "$lab" -ef "$layers" ] || continue 2
    done
    rm -rf "$layers"
  done
}

# settle: brokers with a policy, people who joined, hosts that enforce. Without a broker there is nothing to settle.
settle() {
  local machine person jobs=()
  [ -d "$STATE/machines/b1" ] || return 0
  fill_policy >"$STATE/policy"
  put desk dave policy.yaml <"$STATE/policy"
  as dave pim-ssh policy sign policy.yaml --first -o chain
  as dave cat chain >"$STATE/chain"
  while read -r machine; do
    [ "$(kind_of "$machine")" = broker ] || continue
    settle_broker "$machine" &
    jobs+=($!)
  done < <(machines)
  await "${jobs[@]}"
  jobs=()
  on desk install -m 644 /dev/stdin /srv/chain <"$STATE/chain"
  for person in "${PEOPLE[@]}"; do
    as "$person" pim-ssh join --quiet /srv/chain &
    jobs+=($!)
  done
  await "${jobs[@]}"
  jobs=()
  while read -r machine; do
    [ "$(kind_of "$machine")" = host ] || continue
    settle_host "$machine" &
    jobs+=($!)
  done < <(machines)
  await "${jobs[@]}"
}

settle_broker() { # MACHINE: the same file and the same words on each
  put "$1" root chain <"$STATE/chain"
  on "$1" pim-brokerd bootstrap chain
  on "$1" systemctl --quiet enable --now pim-brokerd
}

settle_host() { # MACHINE
  local label
  label=$(tier_of "$1")
  as dave pim-ssh host token "$1" ${label:+--label "tier=$label"} --address "$(address_of "$1")" -o "$1.token"
  as dave cat "$1.token" | put "$1" root "$1.token"
  on "$1" pim-hostd enrol "$1.token"
  on "$1" systemctl --quiet enable --now pim-hostd.socket pim-hostd.service
  on "$1" pim-hostd enforce
}

# fill_policy: the template with people's and brokers' real keys
fill_policy() {
  local policy person machine stanzas='' stanza
  policy=$(<"$STATE/policy.yaml")$'\n'
  for person in "${PEOPLE[@]}"; do
    policy=${policy//"@$person@"/"$(<"$STATE/keys/$person.pub")"}
  done
  while read -r machine; do
    [ "$(kind_of "$machine")" = broker ] || continue
    stanza=$(on "$machine" pim-brokerd init --name "$machine" --address "$machine:7443")
    stanzas+=$(grep -v '^brokers:' <<<"$stanza" | sed 's/^ */  /')$'\n'
  done < <(machines)
  printf %s "${policy/$'\n@brokers@\n'/$'\n'"$stanzas"}"
}

as() { # PERSON CMD …
  "$HERE/lab" as "$1" -- "${@:2}"
}

put() { # MACHINE ACCOUNT NAME: stdin becomes a file in the account's home
  "$HERE/lab" exec "$1" --as "$2" -- install -m 600 /dev/stdin "$3"
}

await() { # PID …: all of them, and all well
  local pid
  for pid; do wait "$pid"; done
}
