# tree.sh: the Debian tree all machines share: installed once by debootstrap, then given accounts and the lab's own units. Cached; read
# only from then on. It holds no key: those are made by each `up` (furnish.sh).
# shellcheck shell=bash
SUITE=bookworm
PACKAGES=systemd,systemd-sysv,dbus,dbus-user-session,sudo,openssh-server,openssh-client,openssh-sftp-server,libpam-systemd,libnss-systemd
PACKAGES+=,libpam-runtime,iproute2,procps,at,cron,tmux,opendoas,rsync,netcat-openbsd

# ensure_tree: sets TREE, building it if there is none for this version of the lab
ensure_tree() {
  local base
  base=$LAB_CACHE/base-$(digest "$SUITE $PACKAGES")
  TREE=$LAB_CACHE/tree-$(digest "$base $(<"$HERE/tree.sh") ${PEOPLE[*]} $FIRST_UID")
  mkdir -p "$LAB_CACHE"
  exec 8>"$LAB_CACHE/tree.lock"
  flock -s 8
  if [ ! -d "$TREE" ]; then
    flock -u 8
    flock 8
    [ -d "$base" ] || build_base "$base"
    [ -d "$TREE" ] || build_tree "$base"
    forget_old_trees "$base"
  fi
  echo "$TREE" >"$STATE/tree"
  exec 8>&-
}

digest() { printf %s "$1" | sha256sum | cut -c1-12; }

build_base() { # DIR
  echo "lab: installing Debian $SUITE into $1 (about a minute, once)" >&2
  rm -rf "$1.part"
  # In a mount namespace of its own, so that an interrupted debootstrap leaves no mount.
  unshare --mount debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$1.part" "$(mirror)" >"$1.log" 2>&1 ||
    die "debootstrap: $(tail -n 3 "$1.log") (all of it: $1.log; another mirror: LAB_MIRROR=URL)"
  rm -rf "$1.part"/var/cache/apt/* "$1.part"/var/lib/apt/lists/* "$1.part"/etc/ssh/ssh_host_*
  mv "$1.part" "$1"
}

# mirror: the Debian mirror this machine itself uses, else the world's
mirror() {
  local found=
  if [ -z "${LAB_MIRROR:-}" ]; then
    found=$(grep -hoE '^(URIs:|deb( \[[^]]*\])?) +https?://[^ ]+/debian/? *' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
      grep -oE 'https?://[^ ]+' | head -n 1) || true
  fi
  echo "${LAB_MIRROR:-${found:-http://deb.debian.org/debian}}"
}

build_tree() { # BASE
  local tree=$TREE.part
  rm -rf "$tree"
  cp -a "$1" "$tree"
  : >"$tree/etc/machine-id"
  : >"$tree/etc/default/locale"
  add_accounts "$tree"
  add_units "$tree"
  mv "$tree" "$TREE"
}

add_accounts() { # TREE
  local person
  for person in "${PEOPLE[@]}"; do
    chroot "$1" useradd --create-home --shell /bin/bash --uid "$(uid_of "$person")" --user-group --password '*' "$person"
    install -d -m 700 -o "$(uid_of "$person")" -g "$(uid_of "$person")" "$1/home/$person/.ssh"
  done
  # On every host, so that being refused on the wrong one is never for want of the account.
  chroot "$1" useradd --create-home --shell /bin/bash --uid 1100 --user-group --password '*' deploy
  chroot "$1" useradd --system --create-home --home-dir /var/lib/postgresql --shell /bin/bash --uid 900 --user-group --password '*' postgres
}

add_units() { # TREE
  local units=$1/etc/systemd/system unit
  for unit in console-getty.service getty.target apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer systemd-firstboot.service ldconfig.service systemd-journal-catalog-update.service \
    systemd-update-done.service proc-sys-fs-binfmt_misc.automount systemd-udevd.service systemd-networkd.service \
    dev-hugepages.mount sys-fs-fuse-connections.mount remote-cryptsetup.target; do
    ln -sf /dev/null "$units/$unit"
  done
  cat >"$units/lab-net.service" <<'UNIT'
[Unit]
Description=Lab: this machine's address
DefaultDependencies=no
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/ip -batch /etc/lab-net
UNIT
  cat >"$units/lab.service" <<'UNIT'
[Unit]
Description=Lab: where `lab exec` puts its commands; that it runs says the machine is up
After=ssh.service dbus.service systemd-logind.service systemd-user-sessions.service cron.service atd.service
[Service]
ExecStart=/usr/bin/sleep infinity
Delegate=yes
UNIT
  cat >"$units/lab-agent@.service" <<'UNIT'
[Unit]
Description=Lab: ssh-agent of %i, with %i's own key
Before=lab.service
[Service]
Type=forking
User=%i
RuntimeDirectory=lab-agent/%i
RuntimeDirectoryMode=0700
Environment=SSH_AUTH_SOCK=/run/lab-agent/%i/socket
ExecStart=/usr/bin/ssh-agent -a /run/lab-agent/%i/socket
ExecStartPost=/usr/bin/ssh-add -q /home/%i/.ssh/id_ed25519
Restart=on-failure
UNIT
  cat >"$units/postgresql.service" <<'UNIT'
[Unit]
Description=Lab: a service for people to restart
[Service]
User=postgres
ExecStart=/usr/bin/sleep infinity
UNIT
  mkdir -p "$units/sysinit.target.wants" "$units/multi-user.target.wants"
  ln -s ../lab-net.service "$units/sysinit.target.wants/"
  ln -s ../lab.service "$units/multi-user.target.wants/"
}

# forget_old_trees KEEP: those of other versions that no lab stands on
forget_old_trees() {
  local tree
  for tree in "$LAB_CACHE"/base-* "$LAB_CACHE"/tree-*; do
    case $tree in "$1" | "$1".* | "$TREE") continue ;; esac
    grep -qsxF "$tree" /run/pim-lab/*/tree || rm -rf "$tree"
  done
}
