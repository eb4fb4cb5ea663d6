#!/bin/sh
# Sends the trace of a command to the collector at OTEL_EXPORTER_OTLP_ENDPOINT and says where to look at it:
#     run.sh [COMMAND [ARGUMENT]...]
# PYTHON is an interpreter that has otel-sysexit, JAEGER_URL the address of Jaeger's page.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.." # `python -m otel_sysexit` finds the checkout there
python=${PYTHON:-.venv/bin/python}
[ -x "$(command -v "$python")" ] || python=python3
sudo=
[ "$(id -u)" = 0 ] || sudo='sudo -E'
: "${OTEL_EXPORTER_OTLP_ENDPOINT:=http://localhost:4318}"
: "${JAEGER_URL:=http://localhost:16686}"

[ $# -gt 0 ] || set -- sh -c 'ls -l /usr | sort | tail -n 3; cat /etc/hostname /nonexistent; true'

# The traced programs inherit OTEL_SERVICE_NAME: all of them belong to one service then, which is easy to find.
status=0
$sudo env OTEL_EXPORTER_OTLP_ENDPOINT="$OTEL_EXPORTER_OTLP_ENDPOINT" OTEL_SERVICE_NAME=to-jaeger \
	"$python" -m otel_sysexit run -- "$@" || status=$?

echo
echo "Sent to $OTEL_EXPORTER_OTLP_ENDPOINT. Look at it here: $JAEGER_URL/search?service=to-jaeger"
exit "$status"
