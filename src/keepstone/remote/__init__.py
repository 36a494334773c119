# SPDX-License-Identifier: Apache-2.0
"""A store behind a service: writing and reading recovery points from another machine, with the least trust.

`wire` is what both sides say, `places` how the far side names chunks, `writer` and `reader` are the store's `Writer`
and `Reader` over a `Session` and a `Point`, which `calls` carries through HTTPS.
"""

from __future__ import annotations

__all__: list[str] = []
