# SPDX-License-Identifier: Apache-2.0
"""What the service does for machines that write into its stores and read from them: the near half of `remote`.

`view` shows a point without showing the store, `intake` checks and places what comes, `session` is one upload,
`registry` all of them.
"""

from __future__ import annotations

__all__: list[str] = []
