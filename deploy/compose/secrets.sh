#!/bin/sh
# Makes the secrets that docker-compose.yml wants, each in a file of its own in secrets/. What is there stays.
set -eu
cd "$(dirname "$0")/../.."
umask 077
mkdir -p secrets

hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

make_secret() { # make_secret NAME VALUE
  [ -e "secrets/$1" ] && return
  printf %s "$2" > "secrets/$1"
  # Containers read it as users of their own; the directory keeps others on this machine out.
  chmod 444 "secrets/$1"
  echo "secrets/$1"
}

make_secret bootstrap_api_key "iq_compose_$(hex 16)"
make_secret bootstrap_webhook_secret "whsec_$(head -c 32 /dev/urandom | base64)"
make_secret metrics_token "$(hex 16)"
make_secret flower_password "$(hex 12)"
make_secret grafana_password "$(hex 12)"
