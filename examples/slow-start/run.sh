#!/bin/sh
# Why does this program start slowly? Two looks at slow.py. PYTHON is an interpreter that has otel-sysexit.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.." # `python -m otel_sysexit` finds the checkout there
python=${PYTHON:-.venv/bin/python}
[ -x "$(command -v "$python")" ] || python=python3
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

look() {
	echo
	echo "\$ otel-sysexit run${*:+ $*} -- python3 slow.py"
	$sudo "$python" -m otel_sysexit run "$@" -- /usr/bin/python3 "$here/slow.py"
}

echo "1. Everything: which calls does it make, and what do they cost?"
look
echo
echo "2. Only calls with a path that took 50 ms and more: what is it that answers late?"
look --syscalls %file --min-duration 50ms
