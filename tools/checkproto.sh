#!/bin/sh
# Fails when tlog/v1 is not what proto/ generates.
set -eu
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
tools/genproto.sh "$fresh"
diff -r --exclude=__pycache__ "$fresh/tlog/v1" tlog/v1 || {
  echo "tlog/v1 is not what proto/ generates: run 'make proto'" >&2
  exit 1
}
