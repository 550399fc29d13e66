#!/bin/sh
# Usage: build_compiled_wheel.sh PYTHON FOLDER
# Builds the wheel whose path of a request is compiled (docs/decisions/0023-compiled-data-plane.md) into FOLDER, for PYTHON, and
# unpacks it to FOLDER/packages.
#
# It is built from the sources of a release, in another place: a compiled module beside its source in the checkout would be
# imported instead, and later changes of the source would have no effect.
set -eu

python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
mkdir -p "$2"
folder=$(cd "$2" && pwd)

headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
if ! command -v cc > /dev/null || ! [ -e "$headers/Python.h" ]; then
    echo "build_compiled_wheel: a C compiler and Python's headers are needed; on Debian: apt-get install gcc libc6-dev python3-dev" >&2
    exit 1
fi

sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT
"$python" -m hatchling build -t sdist -d "$sources" > /dev/null
tar -xzf "$sources"/*.tar.gz -C "$sources" --strip-components 1
rm -rf "$folder"/*.whl "$folder/packages"
cd "$sources"
HATCH_BUILD_HOOK_ENABLE_MYPYC=1 "$python" -m hatchling build -t wheel -d "$folder" > build.log 2>&1 || { cat build.log >&2; exit 1; }
"$python" -m pip --disable-pip-version-check --quiet install --no-deps --target "$folder/packages" "$folder"/*.whl
