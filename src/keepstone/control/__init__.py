# SPDX-License-Identifier: Apache-2.0
"""The control plane: what can be asked for, one module per noun; each request is one transaction.

Reading takes a connection, so that several readings see one state; what changes something takes a `Change`. The rules
are those of the domain (`vault/`); here they meet the tables, the stores and the queue of jobs. The surfaces (ARM, the
portal) call these functions and have no rules of their own.
"""

from __future__ import annotations

__all__: list[str] = []
