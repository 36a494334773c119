# SPDX-License-Identifier: Apache-2.0
"""Every interleaving of writers, forget and reclaim, over the real store code."""
