#!/bin/bash
# tarball.sh: the release of ARCH from its binary: dist/$ARCH/<VERSION>.tgz and sha256_hex.shasum.
. "$(dirname "$0")/../nuitka/lib.sh"

OUT=$TOP/dist/$ARCH
python=$TOP/build/nuitka/tools/bin/python
VERSION=$(cat "$OUT/VERSION")
seconds=$(sed -n 's/^BUILD_DATE = //p' "$ROOT/opt/src/edge/_build.py")
rm -f "$OUT"/*.tgz "$OUT"/*.cdx.json
"$python" "$TOP/packaging/tarball/attributions.py" --root "$ROOT" --report "$WORK/report.xml" --tree "$WORK/tree" \
  --version "$VERSION" --seconds "$seconds" --output "$WORK/attributions"
"$python" "$TOP/packaging/tarball/make_tarball.py" --binary "$OUT/sagemaker_edge_agent_binary" --attributions "$WORK/attributions" \
  --version "$VERSION" --seconds "$seconds" --output "$OUT"
cp "$WORK/attributions/sbom.cdx.json" "$OUT/$VERSION.cdx.json"
step "$(du -BM "$OUT/$VERSION.tgz" | cut -f1), $(cat "$OUT/sha256_hex.shasum")"
