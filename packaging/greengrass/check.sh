#!/bin/bash
# Deploys both components by a running Greengrass nucleus lite, and talks to the agent's socket. Root, and a machine where
# the nucleus was built from GREENGRASS_LITE (its checkout, with build/bin/ggl-cli) and its services run:
#
#     make greengrass-check GREENGRASS_LITE=/path/to/aws-greengrass-lite [ARCH=arm64]
#
# Local artefacts are copied, not fetched: the recipes have none here. Both components are removed at the end.
set -euo pipefail
cli=${GREENGRASS_LITE:?the path of a checkout of aws-greengrass-lite}/build/bin/ggl-cli
top=$(cd "$(dirname "$0")/../.." && pwd)
binary=$top/dist/${ARCH:-amd64}/sagemaker_edge_agent_binary
agent=aws.greengrass.SageMakerEdgeManager model=com.example.digits version=1.0.0
[ -x "$cli" ] || { echo "$cli is not there: build the checkout first" >&2; exit 2; }
[ -x "$binary" ] || { echo "$binary is not there: make binary" >&2; exit 2; }
systemctl is-active -q greengrass-lite.target || { echo "greengrass-lite.target does not run on this machine" >&2; exit 2; }

work=$(mktemp -d)
chmod 755 "$work"
finish() {
  "$cli" deploy --remove-component "$model" --remove-component "$agent" >/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

"$binary" demo-ca "$work/ca" >/dev/null
mkdir -p "$work/artifacts/$agent/$version" "$work/artifacts/$model/$version" "$work/recipes"
"$binary" package --model "$top/demo/data/digits.tflite" --name digits --version 1 --key "$work/ca/signing.key" \
  --cert "$work/ca/signing.pem" --out "$work/artifacts/$model/$version/digits.tar.gz"
install -m 755 "$binary" "$work/artifacts/$agent/$version/"

recipe() { "${PY:-python3}" "$top/packaging/greengrass/recipe.py" "$@" --version "$version" --bucket "" --out "$work/recipes"; }
recipe agent >/dev/null
recipe model --name "$model" --package digits.tar.gz >/dev/null
# What a deployment's configuration update would say.
sed -i -e 's|    DeviceFleetName: ""|    DeviceFleetName: "check"|' -e 's|Destination: "Cloud"|Destination: "Disk"|' \
  -e "s|    RootCertsPath: .*|    RootCertsPath: \"$work/ca/roots\"|" "$work/recipes/$agent-$version.yaml"

"$cli" deploy --recipe-dir "$work/recipes" --artifacts-dir "$work/artifacts" \
  --add-component "$agent=$version" --add-component "$model=$version"
socket=/tmp/$agent.sock
root=${GREENGRASS_ROOT:-/var/lib/greengrass}
for _ in $(seq 120); do
  [ -e "$root/work/$model/sagemaker_edge_manifest" ] && "$binary" health -a "$socket" >/dev/null 2>&1 && break
  sleep 1
done
"$binary" load "$root/work/$model" digits -a "$socket"
"$binary" predict digits "$top/demo/data/pictures/7_a.bmp" -a "$socket"
echo "both components were deployed and serve"
