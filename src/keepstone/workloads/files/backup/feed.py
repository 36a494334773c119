# SPDX-License-Identifier: Apache-2.0
"""Files on their way from the page that needs them to the workers, and their chunks on the way back.

Small files go in batches, long ones in pieces, and a file with several names goes once. `settle` is told of each thing
that a page waits for no longer.

One thread uses it, also through what the writer calls back.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from functools import partial

from keepstone.env import Env
from keepstone.store import SEGMENT, Writer
from keepstone.workloads.files.backup.batch import Batch, BatchRead
from keepstone.workloads.files.backup.draft import Draft
from keepstone.workloads.files.backup.folders import Folders
from keepstone.workloads.files.backup.intake import Intake, Item, Taken
from keepstone.workloads.files.backup.links import Links
from keepstone.workloads.files.backup.metadata import Attributes
from keepstone.workloads.files.backup.stream import Stream
from keepstone.workloads.files.backup.tally import Tally, is_fatal, is_gone

__all__ = ["Feed", "descriptors"]

_TRIES = 3


def descriptors() -> int:
    """How many files may be open for each of three uses: directories, small files, all else."""
    return max(16, min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))


class Feed:
    """Each file that is wanted must have been counted in its draft's `pending`."""

    def __init__(
        self,
        env: Env,
        writer: Writer,
        folders: Folders,
        attributes: Attributes,
        tally: Tally,
        settle: Callable[[Draft], None],
    ) -> None:
        self._writer = writer
        self._tally = tally
        self._settle = settle
        workers = max(1, env.threads)
        self._intake = Intake(env.fs, folders, attributes, max(4, min(100, descriptors() // workers)), writer.cut)
        self._batch_folders = max(1, descriptors() // (workers + 1))
        self._batch = Batch(self._intake, self._batch_folders)
        self._streams: set[Stream] = set()
        self._links = Links()
        self._again: list[Item] = []

    def want(self, item: Item) -> None:
        """A file is to be read, unless it is another name of one that is read anyway."""
        if item.status.st_nlink > 1:
            link = self._links.find(item)
            if link is not None:
                self._tally.progress.advance(item.status.st_size, 1, item.status.st_size)
                if link.taken is not None:
                    self._take(item, link.refs, link.taken)
                return
        self._queue(item)

    def finish(self) -> None:
        """See to everything that is wanted."""
        self._flush()
        self._writer.drain()
        while self._again:  # what could not be settled while the writer called back
            again, self._again = self._again, []
            for item in again:
                self._queue(item)
            self._flush()
            self._writer.drain()

    def close(self) -> None:
        """Let go of all files. No worker may be reading any more."""
        for stream in self._streams:
            stream.close()

    def _queue(self, item: Item) -> None:
        if item.status.st_size > SEGMENT or item.tries >= _TRIES:
            self._stream(item)
            return
        if not self._batch.has_room(item):
            self._flush()
        self._batch.add(item)

    def _flush(self) -> None:
        batch = self._batch
        if batch.items:
            self._batch = Batch(self._intake, self._batch_folders)
            self._writer.submit(batch.read, partial(self._batch_read, batch), short_calls=True)

    def _batch_read(self, batch: Batch, refs: list[int], read: BatchRead) -> None:
        batch.release()
        results, size = read
        self._tally.read += size
        at = 0
        for item, result in zip(batch.items, results, strict=True):
            if isinstance(result, int):
                end = at + result
                if item.link is None and not item.tries:
                    item.draft.put(item.index, refs[at:end])
                    self._settle(item.draft)
                else:
                    self._take(item, refs[at:end], Taken(count=result))
            else:
                end = at + result.count
                self._take(item, refs[at:end], result)
            at = end
        self._tally.progress.advance(size, len(results))

    def _stream(self, item: Item) -> None:
        try:
            stream = Stream(self._intake, item)
        except OSError as error:
            if is_fatal(error):
                raise
            self._take(item, [], Taken(error=error))
            return
        self._streams.add(stream)
        stream.pending = 1  # until all pieces are submitted
        while not stream.over:
            self._writer.submit(stream.piece(), partial(self._piece_read, stream))
        self._piece_over(stream)

    def _piece_read(self, stream: Stream, refs: list[int], size: int) -> None:
        stream.refs += refs
        self._tally.read += size
        self._tally.progress.advance(size)
        self._piece_over(stream)

    def _piece_over(self, stream: Stream) -> None:
        stream.pending -= 1
        if not stream.pending:
            self._streams.discard(stream)
            taken = stream.taken()
            stream.close()
            self._tally.progress.advance(0, 1)
            self._take(stream.item, stream.refs if taken.error is None else [], taken)

    def _take(self, item: Item, refs: list[int], taken: Taken) -> None:
        """What became of a file, for this name of it and for those that waited."""
        tally, draft = self._tally, item.draft
        if item.tries and taken.status is None:
            taken.status = item.status
        if taken.status is not None:
            tally.size += taken.status.st_size - item.status.st_size
            item.status = taken.status
        if taken.again:
            item.tries += 1
            self._again.append(item)
            return
        path = item.folder.path(item.name)
        if taken.error is None:
            draft.put_file(item.index, refs, item.status, taken)
            if taken.flags:
                tally.changed(path)
            if taken.size >= 0:
                tally.size += taken.size - item.status.st_size
            if taken.unattributed is not None:
                tally.without_attributes(path, taken.unattributed)
        elif is_gone(taken.error):
            tally.left_out(path, taken.error)
            tally.files -= 1
            tally.size -= item.status.st_size
            draft.drop(item.index)
        else:
            tally.unreadable(path, taken.error)
            draft.fail(item.index)
        waiting, good = self._links.settle(item, refs, taken)
        for other in waiting:
            if good:
                self._take(other, refs, taken)
            else:
                self._again.append(other)
        self._settle(draft)
