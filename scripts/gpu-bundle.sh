#!/usr/bin/env bash
# What scripts/gpu-check.sh needs on a machine without network and without Node, in one file: .gpu/bundle.tar.gz holds
# Node, the compiled TypeScript and the production dependencies, binaries of other platforms left out. Unpacked there by
# gpu-check.sh itself; the addon is built there.
#
#   npm run build:ts && scripts/gpu-bundle.sh
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p .gpu "$work/build/gpu-work/bin"
cp "$(command -v node)" "$work/build/gpu-work/bin/node"
cp -R dist "$work/dist"
# The lock file names what production needs; nothing is installed, what is here is copied.
node -e '
  const { packages } = JSON.parse(require("fs").readFileSync("package-lock.json", "utf8"));
  for (const [path, { dev }] of Object.entries(packages)) if (path !== "" && !dev) console.log(path);
' | while read -r path; do
  [[ -d $path ]] || continue # an optional one, for another platform
  mkdir -p "$work/$(dirname "$path")"
  cp -R "$path" "$work/$(dirname "$path")/"
done
find "$work/node_modules" \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.cts' -o -name '*.d.mts' \) -delete
find "$work/node_modules/tokenizers" -name '*.node' ! -name "*.linux-$(node -p process.arch)-gnu.node" -delete
tar --create --gzip --file .gpu/bundle.tar.gz --directory "$work" dist node_modules build
echo ".gpu/bundle.tar.gz: $(du -h .gpu/bundle.tar.gz | cut -f1)"
