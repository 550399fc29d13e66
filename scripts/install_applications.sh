#!/bin/sh
# Installs the applications whose recipes the tests run (docs/how-to/applications) into .venv/applications: JupyterLab, FastAPI, Streamlit, Gradio, marimo with pip,
# Socket.IO and Vite with npm. A gigabyte; only what changed since the last run. Versions and hashes are in tests/applications.
set -eu

PYTHON=${1:-python3}
folder=.venv/applications
wanted=$(cat tests/applications/requirements.lock tests/applications/package-lock.json "$0" | sha256sum; pwd -P)
[ "$(cat "$folder/installed" 2>/dev/null)" != "$wanted" ] || exit 0

echo "install_applications: installing into $folder"
rm -f "$folder/installed"
"$PYTHON" -m venv --clear "$folder"
# Tests of what could not be installed are skipped, and fail where CI is set.
if ! "$folder/bin/python" -m pip --disable-pip-version-check --quiet install --require-hashes -r tests/applications/requirements.lock; then
    echo "install_applications: pip failed; the tests of the recipes are skipped." >&2
    exit 0
fi
mkdir "$folder/node"
cp tests/applications/package.json tests/applications/package-lock.json "$folder/node/"
if ! command -v npm > /dev/null || ! npm ci --prefix "$folder/node" --ignore-scripts --no-audit --no-fund --loglevel error; then
    echo "install_applications: npm is missing or failed; the tests of the recipes for Node are skipped." >&2
    exit 0
fi
echo "$wanted" > "$folder/installed"
