#!/bin/sh
# A base image of Debian 12 and its Python 3.11, for places without a registry: sudo deploy/base.sh IMAGE
# Needs debootstrap and podman; Debian's mirror is MIRROR, or debootstrap's default.
set -eu
image="${1:?the name of the image}"
folder="$(mktemp -d)"
trap 'rm -rf "${folder}"' EXIT
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "${folder}/root" ${MIRROR:+"${MIRROR}"}
cd "${folder}/root"
rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* usr/share/doc/* usr/share/man/* usr/share/locale/*
tar -C "${folder}/root" -c . | podman import - "${image}"
