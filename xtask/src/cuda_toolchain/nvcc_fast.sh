#!/bin/sh
# nvcc, for candle's kernels. Those for quantised weights, which are of no use here, are compiled quickly rather than well, and
# all code is stored compressed.
folder=$(dirname "$(readlink -f "$0")")
case "$*" in
    *--version* | *--list-gpu-code*) exec "$folder/nvcc" "$@" ;;
    *mmq_*.cu* | *mmvq_*.cu* | */moe/*.cu*) exec "$folder/nvcc" --Ofast-compile=max --compress-mode=size "$@" ;;
    *) exec "$folder/nvcc" --compress-mode=size "$@" ;;
esac
