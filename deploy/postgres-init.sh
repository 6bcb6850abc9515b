#!/bin/bash
# Runs once, in a new Postgres container: makes the role of the dispatchers, which owns nothing
# and may only add to the audit log; `clawlink migrate --app-role` gives it what it needs.
set -euo pipefail
password=${CLAWLINK_APP_PASSWORD:-$(cat "${CLAWLINK_APP_PASSWORD_FILE:-/run/secrets/postgres_app_password}")}
psql -v ON_ERROR_STOP=1 -v password="$password" -U "$POSTGRES_USER" -d "$POSTGRES_DB" <<'SQL'
create role clawlink_app login password :'password';
SQL
