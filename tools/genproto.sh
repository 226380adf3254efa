#!/bin/sh
# Generates tlog/v1 from proto/, into the folder given (the repository by default).
set -eu
cd "$(dirname "$0")/.."
out=${1:-.}
bin=${VENV:-.venv}/bin
"$bin/python" -m grpc_tools.protoc --plugin=protoc-gen-mypy="$bin/protoc-gen-mypy" \
  --plugin=protoc-gen-mypy_grpc="$bin/protoc-gen-mypy_grpc" -Iproto \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out" \
  proto/tlog/v1/*.proto
touch "$out/tlog/v1/__init__.py"
