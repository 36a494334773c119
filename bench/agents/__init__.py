# SPDX-License-Identifier: Apache-2.0
"""Agents at scale, and what a backup through one costs.

    python -m bench.agents [--small] [idle|uploads|journey|million …]

`crowd.py` registers machines straight into an installation, `idle.py` lets thousands wait over TLS, `uploads.py`
lets hundreds begin a backup at once, `journey.py` backs up and restores through an agent beside the same through the
store alone, with `million` a tree of a million files as well. Who asks runs on the same cores as who answers. The last
line is JSON.
"""
