# SPDX-License-Identifier: Apache-2.0
"""Disks of virtual machines: what changed, what is read, what is restored, files, and a boot out of the store.

    python -m bench.machines [--small] [scattered|reading|restoring|files|booting …]

`scattered.py` writes at random places of a disk in QEMU and backs up what changed, beside the peers on the same bytes;
`reading.py` reads sparse images of every format from memory; `restoring.py` restores an image in every format beside
what the disk and zstd allow; `files.py` lists and restores files of an NTFS; `booting.py` starts guests from a point
that is served, and from a local disk. It runs on QEMU and the guests of the tests. The last line is JSON.
"""
