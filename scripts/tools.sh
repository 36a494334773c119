#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what the tests run besides Python: by apt as root, quietly; elsewhere says what is missing and how to get it.
set -eu
PATH="$PATH:/usr/sbin:/sbin"

missing=""
need() { # command, package
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need mkfs.ext4 e2fsprogs
need setfacl acl
need setfattr attr
need gcc gcc
need age age
need fusermount3 fuse3
need qemu-system-x86_64 qemu-system-x86
need qemu-img qemu-utils
need libvirtd "libvirt-daemon libvirt-daemon-driver-qemu"
need virsh libvirt-clients
need swtpm "swtpm swtpm-tools"
need nbdkit nbdkit
need nbdcopy libnbd-bin
need busybox busybox-static
need cpio cpio
need sfdisk fdisk
need mkntfs ntfs-3g
need mkfs.xfs xfsprogs
need mkfs.vfat dosfstools
need mkfs.exfat exfatprogs
need mcopy mtools
need pvcreate lvm2
need chromium chromium
[ -e /usr/share/OVMF ] || missing="$missing ovmf"
need mmdebstrap mmdebstrap
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
[ -e /usr/lib/python3/dist-packages/nbd.py ] || missing="$missing python3-libnbd"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # one word per package
    if { apt-get update && apt-get install --yes --no-install-recommends $missing; } >/dev/null; then
        exit 0
    fi
    echo "apt-get could not install:$missing" >&2
fi
echo "The tests need packages that this machine lacks. Get them with:" >&2
echo "    sudo apt-get install$missing" >&2
# On a machine that checks changes a missing tool is a failure; elsewhere the tests that need it say so themselves.
[ -z "${CI:-}" ]
