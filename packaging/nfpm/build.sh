#!/bin/bash
# build.sh: build/*.deb from what `make build` left in build/. The same commit gives the same bytes; nothing is packed again when nothing
# changed. `make package` calls it, in the top folder, with VERSION and NFPM.
set -euo pipefail
ARCH=$(go env GOARCH)
MULTIARCH=$(uname -m)-linux-gnu
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export VERSION ARCH MULTIARCH SOURCE_DATE_EPOCH
PACKAGES=(pim-ssh pim-ssh-broker pim-ssh-host)
STAGE=build/stage # what is made of our sources, one folder a package; the yaml files beside this one name all the rest
umask 022

main() {
  local inputs package jobs=()
  inputs=$(inputs)
  # shellcheck disable=SC2046
  if [ "$(cat build/packaged 2>/dev/null)" = "$inputs" ] && ls $(debs) >/dev/null 2>&1; then return; fi
  rm -rf $STAGE build/packaged build/*.deb
  for package in "${PACKAGES[@]}"; do mkdir -p "$STAGE/$package"/{doc,man}; done
  licences pim-ssh >$STAGE/pim-ssh/doc/copyright
  licences pim-brokerd >$STAGE/pim-ssh-broker/doc/copyright
  licences pim-hostd >$STAGE/pim-ssh-host/doc/copyright
  for package in "${PACKAGES[@]}"; do gzip -9n <CHANGELOG.md >"$STAGE/$package/doc/changelog.gz"; done
  manuals
  completions
  strip --strip-unneeded -o $STAGE/pim-ssh-host/pam_pim.so build/pam_pim.so
  strip -o $STAGE/pim-ssh-host/pim-principals build/pim-principals
  for package in "${PACKAGES[@]}"; do
    pack "$package" &
    jobs+=($!)
  done
  for package in "${jobs[@]}"; do wait "$package"; done
  echo "$inputs" >build/packaged
}

pack() { # PACKAGE
  local said
  said=$(go run "$NFPM" package --packager deb --config "packaging/nfpm/$1.yaml" --target build/ 2>&1) || { echo "$1: $said" >&2; return 1; }
}

# inputs: one word for everything that the packages are made of
inputs() {
  {
    echo "$NFPM $VERSION $ARCH $SOURCE_DATE_EPOCH"
    find build/pam_pim.so build/pim-{brokerd,hostd,principals,ssh} CHANGELOG.md packaging -path packaging/lab -prune -o -type f -print0 |
      LC_ALL=C sort -z | xargs -0 sha256sum
  } | sha256sum
}

debs() { # what there is to make
  local package
  for package in "${PACKAGES[@]}"; do echo "build/${package}_${VERSION}_$ARCH.deb"; done
}

# licences PROGRAM: our licence, and that of every module linked into the program
licences() {
  local module version dir file
  cat packaging/copyright
  go version -m "build/$1" | awk '$1 == "dep" { print $2, $3 }' | while read -r module version; do
    printf '\n---- %s %s\n' "$module" "$version"
    dir=$(go list -m -f '{{.Dir}}' "$module")
    for file in "$dir"/LICEN[CS]E* "$dir"/COPYING* "$dir"/NOTICE*; do
      [ ! -f "$file" ] || { echo; cat "$file"; }
    done
  done
}

# manuals: each with the program it tells of
manuals() {
  local page name package
  for page in packaging/man/*; do
    name=${page##*/}
    case $name in
      pim-brokerd.* | broker.yaml.*) package=pim-ssh-broker ;;
      pim-hostd.* | host.yaml.*) package=pim-ssh-host ;;
      *) package=pim-ssh ;;
    esac
    mkdir -p "$STAGE/$package/man/man${name##*.}"
    gzip -9n <"$page" >"$STAGE/$package/man/man${name##*.}/$name.gz"
  done
}

completions() {
  mkdir $STAGE/pim-ssh/completions
  build/pim-ssh completion bash >$STAGE/pim-ssh/completions/pim-ssh
  build/pim-ssh completion zsh >$STAGE/pim-ssh/completions/_pim-ssh
  build/pim-ssh completion fish >$STAGE/pim-ssh/completions/pim-ssh.fish
}

main
