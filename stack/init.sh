#!/bin/sh
# Run once by `docker compose` before anything else: makes one secret per consumer, each in a volume of its own, and
# prints none of them. What is there already stays, so that nothing changes from one start to the next. And writes what
# Grafana evaluates and whom it tells.
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
secret /run/secrets/ingest/token
secret /run/secrets/grafana/password
# The operator's token is for plimsoll's own user only.
chmod 0600 /run/secrets/operator/token

# plimsoll itself gets hashes; config/docker.yaml reads them.
{
  echo "PLIMSOLL_PROMETHEUS_SHA256=$(plimsoll token hash < /run/secrets/prometheus/token)"
  echo "PLIMSOLL_OPERATOR_SHA256=$(plimsoll token hash < /run/secrets/operator/token)"
  echo "PLIMSOLL_INGEST_SHA256=$(plimsoll token hash < /run/secrets/ingest/token)"
} > /run/plimsoll/tokens.env.new
mv /run/plimsoll/tokens.env.new /run/plimsoll/tokens.env

# What Grafana evaluates, and whom it tells. Written anew at every start; an empty variable or a missing file in here would
# keep Grafana from starting.
alerting=/run/grafana/alerting
rm -f "$alerting"/*.yaml
case ",${COMPOSE_PROFILES:-}," in
  *,alertmanager,*) plimsoll alerts grafana --paused --output "$alerting/rules.yaml" ;; # told by Alertmanager, and once
  *) plimsoll alerts grafana --output "$alerting/rules.yaml" ;;
esac
cp /etc/plimsoll/alerting/contact-points.yaml "$alerting/contact-points.yaml"
case ${ALERT_WEBHOOK_URL:-} in
  '')
    cp /etc/plimsoll/alerting/policies.yaml "$alerting/policies.yaml"
    echo "ALERT_WEBHOOK_URL is not set: alerts show in plimsoll and in Grafana, and when plimsoll itself is down in Grafana only"
    ;;
  *[!-A-Za-z0-9._~:/?#@!\$\&*+,\;=%]* | http:// | https://) webhook=refused ;;
  http://* | https://*)
    sed 's/^\( *\)#elsewhere /\1/' /etc/plimsoll/alerting/policies.yaml > "$alerting/policies.yaml"
    # Grafana takes $ for a variable and $$ for a $.
    cat > "$alerting/elsewhere.yaml" <<END
apiVersion: 1
contactPoints:
  - orgId: 1
    name: elsewhere
    receivers:
      - uid: elsewhere
        type: webhook
        settings:
          url: '$(printf %s "$ALERT_WEBHOOK_URL" | sed 's/\$/$$/g')'
          httpMethod: POST
END
    ;;
  *) webhook=refused ;;
esac
if [ "${webhook:-}" = refused ]; then
  echo "ALERT_WEBHOOK_URL is no address like https://example.com/hook: correct it, or leave it empty" >&2
  exit 1
fi

# Whom Alertmanager tells, for those who start it.
if [ -n "${ALERT_WEBHOOK_URL:-}" ]; then
  url=$(printf %s "$ALERT_WEBHOOK_URL" | sed 's/[&|\\]/\\&/g')
  sed -e 's/^\( *\)#elsewhere /\1/' -e "s|@ALERT_WEBHOOK_URL@|$url|" /etc/plimsoll/alertmanager.yml
else
  cat /etc/plimsoll/alertmanager.yml
fi > /run/alertmanager/alertmanager.yml

echo "secrets are ready; these commands show them:"
echo "  docker compose exec plimsoll cat /run/secrets/operator/token    the operator's token"
echo "  docker compose exec grafana cat /run/secrets/grafana/password   the password of Grafana's user admin"
