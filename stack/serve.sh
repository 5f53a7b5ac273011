#!/bin/sh
# Runs a command of plimsoll in `docker compose`: with the hashes that init.sh made in its environment.
set -eu
set -a
. /run/plimsoll/tokens.env
set +a
exec plimsoll "$@"
