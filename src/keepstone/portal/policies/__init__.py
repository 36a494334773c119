# SPDX-License-Identifier: Apache-2.0
"""Policies for people: in words, as a form, and what a changed one would do as a calendar."""

from __future__ import annotations

__all__: list[str] = []
