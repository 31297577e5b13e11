#!/usr/bin/env bash
# Bootstrap action of a cluster: installs the bundle into /opt/cdi/venv without a package index.
# Usage: bootstrap.sh <bundle URI, s3:// or a folder>
set -euo pipefail
umask 022 # hardened images have 027: the users of Spark and YARN could then not read what is installed here

bundle_uri="${1:?usage: bootstrap.sh <bundle URI>}"
prefix="${CDI_PREFIX:-/opt/cdi}"
python="${CDI_PYTHON:-python3.11}"

as_root() { if [ "$(id -u)" -eq 0 ] || [ -w "$(dirname "$prefix")" ]; then "$@"; else sudo "$@"; fi; }

if [ -z "${CDI_PREFIX:-}" ]; then
    as_root mkdir -p "$prefix"
    as_root chown "$(id -u)" "$prefix"
else
    mkdir -p "$prefix"
fi

fetched="$prefix/bundle"
rm -rf "$fetched" "$prefix/venv" "$prefix/entry_points"
mkdir -p "$fetched"
case "$bundle_uri" in
    s3://*) aws s3 cp --recursive --only-show-errors "${bundle_uri%/}/" "$fetched/" ;;
    *) cp -R "${bundle_uri%/}/." "$fetched/" ;;
esac

echo "Checking the hashes of $bundle_uri"
(cd "$fetched" && sha256sum --check --strict --quiet SHA256SUMS)

"$python" -m venv "$prefix/venv"
"$prefix/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
    --find-links "$fetched/wheels" --require-hashes -r "$fetched/requirements.txt"
cp -R "$fetched/entry_points" "$prefix/entry_points"
cp "$fetched/log4j2.json" "$prefix/log4j2.json"
"$prefix/venv/bin/python" -c 'import cdi_dagster.spark, boto3, dagster_pipes, isal, msgspec, orjson; print("cdi: bundle installed")'
