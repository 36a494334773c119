# SPDX-License-Identifier: Apache-2.0
"""The command `keepstone`: composes the rooms below, shows what they do, and turns failures into exit codes.

A command's module, and what it needs, is imported when it runs.
"""

from __future__ import annotations

from keepstone.cli.start import main

__all__ = ["main"]
