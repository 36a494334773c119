#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# After the files are there. deb: `configure <old version>`; rpm: `1` for the first, `2` for an upgrade.
set -e

if command -v systemd-sysusers >/dev/null 2>&1; then
    systemd-sysusers keepstone.conf
elif ! getent passwd keepstone >/dev/null; then
    useradd --system --home-dir /var/lib/keepstone --shell /usr/sbin/nologin keepstone
fi
install -d -o keepstone -g keepstone -m 0700 /var/lib/keepstone

if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    # Only what runs already.
    systemctl try-restart keepstone.service keepstone-agent.service || true
fi
