#!/usr/bin/env bash
# Builds the OpenTelemetry Collector and Jaeger v2 for the tests in this folder, from their Go modules.
#
#   build.sh           build what is missing
#   build.sh --print   print the folder that holds (or will hold) the binaries `otelcol` and `jaeger`
#
# The folder's name is a hash of all that decides what the binaries are, so a finished build is found again at once
# and without Go's own caches. The checksums of every module are verified by Go as usual.
set -euo pipefail

least_go=1.25           # for Jaeger
least_go_collector=1.26 # what the Collector's own modules ask for
builder=go.opentelemetry.io/collector/cmd/builder@v0.165.0
jaeger=github.com/jaegertracing/jaeger/cmd/jaeger
link_flags='-s -w'
export CGO_ENABLED=0 GOFLAGS='-buildvcs=false -trimpath' GOWORK=off
export GOTOOLCHAIN=local # no other Go is fetched behind the user's back

here=$(cd "$(dirname "$0")" && pwd)

# Whether version $1 (such as 1.26.8) is $2 or newer.
at_least() {
    [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# Prints the version of the Go program $1, without what follows the numbers.
version_of() {
    "$1" env GOVERSION 2>/dev/null | sed -n 's/^go\([0-9.]*\).*/\1/p'
}

# Prints the newest Go that is good enough; fails when there is none.
find_go() {
    local candidate version newest= found=
    for candidate in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go-*/bin/go; do
        [ -x "$candidate" ] || continue
        version=$(version_of "$candidate")
        # The first of equals stays.
        if at_least "${version:-0}" "$least_go" && ! at_least "${newest:-0}" "$version"; then
            newest=$version found=$candidate
        fi
    done
    [ -n "$found" ] && printf '%s\n' "$found"
}

# Says what is missing; that is an error only where the tests must run, and where there is no folder to print.
lack() {
    echo "back ends: $1" >&2
    if [ "${OTEL_SYSEXIT_BACKENDS:-}" = 1 ]; then exit 1; fi
}

if ! go=$(find_go); then
    lack "no Go >= $least_go found: the tests against the Collector and Jaeger will be skipped"
    if [ "${1:-}" = --print ]; then exit 1; fi
    exit 0
fi

key=$(
    {
        "$go" version
        echo "$builder $jaeger $link_flags $GOFLAGS $CGO_ENABLED"
        cd "$here"
        sha256sum collector/builder.yaml jaeger/go.mod jaeger/go.sum
    } | sha256sum | cut -c 1-16
)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/otel-sysexit/backends/$key

if [ "${1:-}" = --print ]; then
    printf '%s\n' "$folder"
    exit
fi
wanted='otelcol jaeger'
if ! at_least "$(version_of "$go")" "$least_go_collector"; then
    lack "$("$go" version) is older than $least_go_collector: the tests against the Collector will be skipped"
    wanted=jaeger
fi
missing=
for name in $wanted; do
    if [ ! -x "$folder/$name" ]; then missing+=" $name"; fi
done
if [ -z "$missing" ]; then
    echo "back ends: ready in $folder"
    exit
fi

mkdir -p "$folder"
if command -v flock >/dev/null; then # a second build waits for the first, then finds its binaries
    exec 9>"$folder/.lock"
    flock 9
    rm -rf "$folder"/.build.* # of a build that was killed
fi
work=$(mktemp -d "$folder/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# Each builder leaves its binary in $work.
build_otelcol() {
    cp "$here/collector/builder.yaml" "$work"
    (cd "$work" && PATH="$(dirname "$go"):$PATH" "$go" run "$builder" --config builder.yaml)
    mv "$work/out/otelcol" "$work/otelcol"
}
build_jaeger() {
    "$go" -C "$here/jaeger" build -mod=readonly -ldflags="$link_flags" -o "$work/jaeger" "$jaeger"
}

for name in $missing; do
    if [ -x "$folder/$name" ]; then continue; fi
    echo "back ends: building $name (minutes, the first time)"
    "build_$name"
    mv "$work/$name" "$folder/$name" # a rename: the binary is there whole or not at all
done
echo "back ends: ready in $folder"
