# pim.sh: pim-ssh on the lab's machines, installed by the Makefile and set up by nothing but what its own manual tells people to type.
# shellcheck shell=bash

# install_layers: what each kind of machine gets, as an overlay under its tree
install_layers() {
  exec 8>"$LAB_CACHE/build.lock"
  flock 8
  mkdir -p "$STATE/layers/"{broker,host,desk}
  make -s -C "$REPO" install-cli DESTDIR="$STATE/layers/desk" 8>&-
  make -s -C "$REPO" install-host DESTDIR="$STATE/layers/host" 8>&-
  [ ! -d "$STATE/machines/b1" ] || make -s -C "$REPO" install-broker DESTDIR="$STATE/layers/broker" 8>&-
  exec 8>&-
}

# settle: brokers with a policy, people who joined, hosts that enforce. Without a broker there is nothing to settle.
settle() {
  local machine person jobs=()
  [ -d "$STATE/machines/b1" ] || return 0
  fill_policy >"$STATE/policy"
  put desk dave policy.yaml <"$STATE/policy"
  as dave pim-ssh policy sign policy.yaml --first -o chain
  as dave cat chain >"$STATE/chain"
  put b1 root chain <"$STATE/chain"
  on b1 pim-brokerd bootstrap chain
  on b1 systemctl --quiet enable --now pim-brokerd
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
