#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Before the files go. deb: `remove` or `upgrade`; rpm: `0` for the last one, `1` for an upgrade.
set -e

case "$1" in
remove | 0)
    if [ -d /run/systemd/system ]; then
        systemctl disable --now keepstone.service keepstone-agent.service || true
    fi
    ;;
esac
