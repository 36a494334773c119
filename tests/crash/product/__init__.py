# SPDX-License-Identifier: Apache-2.0
"""The product's own crash tests, on the engine of this package.

letters.py, trees.py  tiny points whose content is known from their tag: of chunks, and of a real tree of files
work.py               what a workload does with a store, and what it is promised for it
check.py              what must hold on whatever a crash or a fault leaves
workloads/            the scripts that are recorded
mutants.py            mistakes planted in the product's text
"""
