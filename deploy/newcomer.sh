#!/usr/bin/env bash
# Does what README.md tells a newcomer to do, on a bare Debian: `make newcomer`, or `make newcomer NEWCOMER=demo` to stop
# after the demo's answer. What is cloned is HEAD: what is not committed is not tried.
#
# The Debian is a directory. Everything that is mounted into it and every process in it belongs to namespaces of their
# own (mount, pid), which end with this script however it ends; so nothing has to be unmounted, and removing the
# directory cannot reach anything outside. (A `kill -9` leaves the directory.)
set -euo pipefail

#: What README.md says a machine needs; git is for the clone, and ca-certificates came with it.
PACKAGES=git,make,libnuma1,python3-venv,ca-certificates
RELEASE=${NEWCOMER_RELEASE:-bookworm}
MIRROR=${NEWCOMER_MIRROR:-http://deb.debian.org/debian}
#: Gigabytes: Debian, the clone, vLLM's packages and pip's copies of them while they are installed.
ROOM_GB=12

refuse() { echo "newcomer: $*" >&2; exit 1; }
say() { echo "newcomer: $*"; }

#: `pip`'s settings here as NAME=VALUE for pip's environment there; what comes later counts.
pip_settings() {
  local all section name value
  all=$(python3 -m pip config list 2>/dev/null || true)
  for section in global install :env:; do
    sed -nE "s/^$section\.([a-z-]+)='(.*)'$/\1=\2/p" <<<"$all" | while IFS='=' read -r name value; do
      name=${name//-/_}
      echo "PIP_${name^^}=$value"
    done
  done
}

#: The directories and files that such settings name on this machine.
paths_in() { tr ' =' '\n\n' | sed -n 's|^file://||; \|^/|p' | sort -u; }

prepare() {
  local root=$1
  mount --make-rprivate /
  say "making a bare Debian $RELEASE with ${PACKAGES//,/ }"
  debootstrap --variant=minbase --include="$PACKAGES" "$RELEASE" "$root" "$MIRROR" >"$root.log" 2>&1 ||
    { tail -n 5 "$root.log" >&2; refuse "debootstrap failed"; }
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  for device in null zero full random urandom tty; do
    touch "$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"
  done
  mkdir "$root/dev/shm" "$root/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx" && ln -s /proc/self/fd "$root/dev/fd"
  # The way out of this machine: names, authorities, and where its pip finds packages.
  cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
  [ ! -f /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  pip_settings | paths_in | while read -r path; do
    [ -e "$path" ] && [ ! -e "$root$path" ] || continue
    # An index refers to files beside it.
    if [ -d "$path" ]; then [ "$(basename "$path")" != simple ] || path=$(dirname "$path"); mkdir -p "$root$path"
    else mkdir -p "$(dirname "$root$path")" && touch "$root$path"; fi
    mount --bind -o ro "$path" "$root$path"
  done
  chroot "$root" useradd --create-home --shell /bin/bash newcomer
  # With its branch, if it is on one: a detached HEAD would be explained at length.
  git bundle create "$root/home/newcomer/inferq.bundle" HEAD $(git branch --show-current) 2>/dev/null
  chmod a+r "$root/home/newcomer/inferq.bundle"
}

#: As an ordinary user, with no variable of ours but those that lead out of this machine.
as_newcomer() {
  local root=$1 environment=(HOME=/home/newcomer PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8) name
  shift
  for name in {http,https,no,all}_proxy {HTTP,HTTPS,NO,ALL}_PROXY SSL_CERT_FILE REQUESTS_CA_BUNDLE TORCH_INDEX; do
    [ -z "${!name:-}" ] || environment+=("$name=${!name}")
  done
  while read -r line; do environment+=("$line"); done < <(pip_settings)
  # What a script starts in the background is deaf to Ctrl-C, and so is all it starts; a newcomer's terminal is not.
  chroot --userspec=newcomer:newcomer "$root" env -i --default-signal=INT,QUIT "${environment[@]}" bash -c "$1" </dev/null
}

step() {
  local root=$1 began=$SECONDS
  say "\$ $2"
  as_newcomer "$root" "cd ~/${3:-} && $2" || refuse "\`$2\` ended with status $?: README.md does not keep its promise"
  say "\`$2\` was good after $((SECONDS - began)) s"
}

if [ "${1:-}" = --inside ]; then
  prepare "$2"
  step "$2" "git clone --quiet inferq.bundle inferq"
  step "$2" "make demo" inferq
  [ "$3" = demo ] || step "$2" "make test" inferq
  exit
fi

WHAT=${NEWCOMER:-all}
[ "$WHAT" = all ] || [ "$WHAT" = demo ] || refuse "NEWCOMER must be demo or all, not $WHAT"
[ "$(id -u)" = 0 ] || refuse "this needs root: it makes a Debian in a directory and goes into it"
for tool in debootstrap unshare setpriv git python3; do
  command -v $tool >/dev/null || refuse "this needs $tool: apt-get install debootstrap util-linux git python3"
done
unshare --mount --pid --fork true 2>/dev/null || refuse "this needs namespaces (unshare --mount --pid), which are refused here"
PLACE=${NEWCOMER_PLACE:-/var/tmp}
FREE_GB=$(df --output=avail --block-size=1G "$PLACE" | tail -n 1 | tr -d ' ')
[ "$FREE_GB" -ge $ROOM_GB ] || refuse "$PLACE has $FREE_GB GB free, and this needs $ROOM_GB: name another place with NEWCOMER_PLACE"

cd "$(dirname "$0")/.."
[ -z "$(git status --porcelain --untracked-files=no)" ] || say "what is not committed is not tried"
say "trying $(git log -1 --format='%h %s')"
WORK=$(mktemp -d "$PLACE/inferq-newcomer-XXXXXX")
INSIDE=
clean() {
  # A signal may come more than once, from a terminal, make or timeout: ours and rm's ears are shut by now.
  trap '' INT TERM HUP
  [ -z "$INSIDE" ] || { kill -KILL "$INSIDE"; wait "$INSIDE"; } 2>/dev/null || true
  # What is killed may write for a moment longer.
  rm -rf --one-file-system "$WORK" 2>/dev/null || { sleep 2; rm -rf --one-file-system "$WORK"; }
}
trap clean EXIT
trap 'exit 130' INT TERM HUP
setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child deploy/newcomer.sh --inside "$WORK/root" "$WHAT" &
INSIDE=$!
wait "$INSIDE"
say "all of it was good, and is removed again"
