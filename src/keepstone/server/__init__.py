# SPDX-License-Identifier: Apache-2.0
"""The service as processes: a server, which keeps time and looks after the others; answerers, which answer at its port;
a receiver, to which agents write and from which they read; and workers, which run its jobs. One data folder.

Who holds the folder's lock is the server (`instance.py`). It starts the others and keeps them alive (`children.py`).
"""

from __future__ import annotations

__all__: list[str] = []
