#!/bin/sh
# Run once by `docker compose` before anything else: makes one secret per consumer, each in a volume of its own, and
# prints none of them. What is there already stays, so that nothing changes from one start to the next.
set -eu
umask 022

secret() { # secret FILE
  if [ ! -s "$1" ]; then
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' > "$1.new"
    mv "$1.new" "$1"
  fi
}

secret /run/secrets/prometheus/token
secret /run/secrets/operator/token
secret /run/secrets/grafana/password
# The operator's token is for plimsoll's own user only.
chmod 0600 /run/secrets/operator/token

# plimsoll itself gets hashes; config/docker.yaml reads them.
{
  echo "PLIMSOLL_PROMETHEUS_SHA256=$(plimsoll token hash < /run/secrets/prometheus/token)"
  echo "PLIMSOLL_OPERATOR_SHA256=$(plimsoll token hash < /run/secrets/operator/token)"
} > /run/plimsoll/tokens.env.new
mv /run/plimsoll/tokens.env.new /run/plimsoll/tokens.env

echo "secrets are ready; these commands show them:"
echo "  docker compose exec plimsoll cat /run/secrets/operator/token    the operator's token"
echo "  docker compose exec grafana cat /run/secrets/grafana/password   the password of Grafana's user admin"
