#!/bin/sh
# setup.sh VENV REQUIREMENTS: install what is missing, and nothing twice.
# The virtual environment is made from the Python that the distribution's bcc belongs to, and sees it.
set -eu

venv=$1
requirements=$2

sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

# The Python of the distribution: bcc is installed for it, whatever `python3` is on PATH.
python=/usr/bin/python3

has_bcc() {
	"$python" -I -c 'import bcc; bcc.BPF' 2>/dev/null
}

install_debian() {
	$sudo apt-get update -qq
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$@" >&2
}

if ! [ -x "$python" ] || ! has_bcc || ! "$python" -c 'import ensurepip' 2>/dev/null; then
	if command -v apt-get >/dev/null; then
		echo "setup: installing python3-bpfcc and python3-venv" >&2
		install_debian python3-bpfcc python3-venv
	else
		for pair in dnf:python3-bcc apk:py3-bcc pacman:python-bcc zypper:python3-bcc; do
			if command -v "${pair%%:*}" >/dev/null; then
				echo "setup: bcc is missing: install the package ${pair#*:}, then run make again" >&2
				exit 1
			fi
		done
		echo "setup: bcc is missing: install your distribution's Python binding of the BPF Compiler Collection" >&2
		exit 1
	fi
fi
has_bcc || { echo "setup: $python still has no bcc after installing python3-bpfcc" >&2; exit 1; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
	echo "setup: $python is older than 3.11, which otel-sysexit needs" >&2
	exit 1
}

[ -x "$venv/bin/python" ] || "$python" -m venv --system-site-packages "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$requirements"

# Development only: the tests' programs are compiled, some for i386, and traced by the tools we compare with; some are real.
case $requirements in
*dev.txt)
	if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
		missing=
		command -v cc >/dev/null || missing="$missing gcc libc6-dev"
		for tool in strace make git curl sqlite3; do
			command -v "$tool" >/dev/null || missing="$missing $tool"
		done
		if [ "$(uname -m)" = x86_64 ] && ! printf '#include <errno.h>\nint main(void) { return errno; }\n' | cc -m32 -static -x c -o /dev/null - 2>/dev/null; then
			missing="$missing gcc-multilib"
		fi
		# shellcheck disable=SC2086 # a list of names
		[ -z "$missing" ] || { $sudo apt-get update -qq; install_debian $missing; }
	fi
	;;
esac
