# SPDX-License-Identifier: Apache-2.0
"""Tags of a resource as the command line takes them: `--tags team=web --tags stage=live`, or both in one text."""

from __future__ import annotations

import shlex

import click

__all__ = ["tags_of", "tags_option"]

tags_option = click.option(
    "--tags",
    multiple=True,
    metavar="KEY=VALUE",
    help="What it is marked with, in place of all earlier tags.",
)


def tags_of(given: tuple[str, ...]) -> dict[str, str] | None:
    """None where none were given; `--tags ''` takes all away. `UsageError`."""
    from keepstone.errors import UsageError

    if not given:
        return None
    tags = {}
    for text in given:
        for word in shlex.split(text):
            key, _, value = word.partition("=")
            if not key:
                raise UsageError(f"--tags {text!r} has no key; write KEY=VALUE")
            tags[key] = value
    return tags
