# SPDX-License-Identifier: Apache-2.0
"""The program of the jail: `python -m keepstone.disks.parse WHAT FD...` reads the tables of open images, and says on
its standard output what it found. Whatever it needs is there before it is confined: it cannot open a file any more."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from keepstone.disks import vhd, vhdx, vmdk
from keepstone.disks.image import Image, ImageFile
from keepstone.disks.jail import Answer, confine, packed
from keepstone.disks.layout import Layout, check, check_apart
from keepstone.env import Env
from keepstone.errors import SourceFailed, Unsupported

__all__ = ["PARSERS", "main"]

PARSERS: Mapping[str, Callable[[Image], Layout]] = {
    "vhd": vhd.parse,
    "vhdx": vhdx.parse,
    "vmdk-delta": partial(vmdk.parse, child=True),
    "vmdk-sparse": partial(vmdk.parse, child=False),
}
"""Besides these there is `vmdk`, which reads a description and no tables."""


def _answer(what: str, images: list[ImageFile]) -> Answer:
    try:
        if what == "vmdk":
            return Answer(description=vmdk.describe(images[0]))
        return Answer([packed(check_apart(check(PARSERS[what](image), [image.size]))) for image in images])
    except Unsupported as error:
        return Answer(unknown=str(error))
    except SourceFailed as error:
        return Answer(wrong=str(error))
    except OSError as error:
        return Answer(wrong=f"it cannot be read: {error.strerror}")
    except MemoryError:
        return Answer(wrong="its tables want more memory than any real image does")


def main() -> None:
    """See above."""
    what, *files = sys.argv[1:]
    env = Env()
    images = [ImageFile(env, int(file)) for file in files]
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        codecs.lookup(encoding)
    confine()
    answer = memoryview(msgspec.msgpack.encode(_answer(what, images)))
    while answer:
        answer = answer[os.write(1, answer) :]


if __name__ == "__main__":
    main()
