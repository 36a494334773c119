# SPDX-License-Identifier: Apache-2.0
"""The portal: pages for people, drawn by the service, over the same operations that ARM clients ask for.

It decides nothing: what is shown and done is asked of the operations (`api.py`), and so are the rights of who looks.
`application` answers requests, `views/` has a module for each view, `actions/` what can be done, with its equivalents
as commands. `templates/` and `static/` are what pages are made of; `licences/vendored.toml` says where each foreign
file there comes from.
"""

from __future__ import annotations

from keepstone.portal.application import PREFIX, Portal

__all__ = ["PREFIX", "Portal"]
