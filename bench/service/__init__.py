# SPDX-License-Identifier: Apache-2.0
"""The service at scale: 10,000 items, a million points and a million jobs on SQLite.

    python -m bench.service [--small] [PART…]

`estate.py` makes the installation. `pages.py` asks one request at a time, `portal.py` one page, `load.py` as many as
the server answers; all ask a real server over HTTPS on this machine, so the CPU of whoever asks counts against the same
cores. `minute.py` lets 1,000 schedules fall due at once, `sweep.py` judges every point. The last line is JSON.
"""
