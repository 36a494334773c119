# SPDX-License-Identifier: Apache-2.0
"""The benchmark: Keepstone beside restic and borg, on the same data and the same machine, whole processes measured.

setup (places, peers) -> data (what is backed up) -> peers (how each tool is called) -> measure (one process)
-> run (the jobs, interleaved) -> figures (medians, ratios, bars) -> table (markdown out of results.json).
"""
