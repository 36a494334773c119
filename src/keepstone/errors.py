# SPDX-License-Identifier: Apache-2.0
"""Every failure that a caller can act on, as one tree.

    KeepstoneError
    ├── UsageError                     the request itself makes no sense
    │   ├── InvalidPolicy              a policy that cannot be carried out
    │   ├── InvalidFilter              a $filter that is not understood
    │   ├── InvalidRequest             a part of a request's document that does not do
    │   ├── Unsupported                Keepstone does not do this, or not yet
    │   └── NotEmpty                   something still has what has to go first
    ├── NotFound                       a named thing does not exist
    │   ├── StoreMissing               no store at that place
    │   ├── PointNotFound
    │   ├── ObjectMissing              an object that the store should hold is gone
    │   ├── GroupNotFound              no resource group of this name
    │   ├── JobNotFound
    │   ├── NoOperation                nothing answers a request of this kind
    │   └── SourceMissing              what was to be backed up is not there
    ├── AlreadyExists
    │   ├── Conflict                   something is in a state in which this cannot be done
    │   ├── PreconditionFailed         something has changed since it was looked at
    │   ├── ObjectExists               put-if-absent found the name taken
    │   ├── StoreExists
    │   └── TargetExists               a restore would overwrite something
    ├── SourceFailed                   what was to be backed up cannot be read, or changed its length meanwhile
    ├── Unauthenticated                nobody knows who asks
    ├── Unauthorized                   somebody may not do what he asks for
    ├── AccessDenied                   the operating system said no
    ├── WrongKey                       passphrase or key does not open the store
    ├── FormatError                    bytes are not what the format says: damage, forgery or a bug
    │   ├── CorruptObject              a stored object fails its own check
    │   ├── RollbackDetected           the store is older than what this machine has seen of it
    │   └── HostileName                a name in a manifest would leave the restore target
    ├── UnsupportedFormat              a foreign or newer store; upgrade Keepstone
    ├── StorageError                   the storage below failed
    │   └── StorageFull
    ├── ServiceUnavailable             the service does not answer, or cannot now
    ├── RestoreIncomplete              a part of the point was left out; everything else is restored
    ├── LeaseLost                      this writer was aborted; nothing of it is visible, start again
    ├── JobLost                        another worker has this job by now; this one stops
    ├── JobCancelled                   somebody asked for the end of this job
    ├── WriterFailed                   a part of the backup pipeline broke; nothing was committed
    └── GuardRefused                   a lock or a guard forbids it

Each class has a stable `code` (for programs and the API), an HTTP `status` and a CLI `exit_code`. The message
names the object and says what to do next.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "Conflict",
    "CorruptObject",
    "FormatError",
    "GroupNotFound",
    "GuardRefused",
    "HostileName",
    "InvalidFilter",
    "InvalidPolicy",
    "InvalidRequest",
    "JobCancelled",
    "JobLost",
    "JobNotFound",
    "KeepstoneError",
    "LeaseLost",
    "NoOperation",
    "NotEmpty",
    "NotFound",
    "ObjectExists",
    "ObjectMissing",
    "PointNotFound",
    "PreconditionFailed",
    "RestoreIncomplete",
    "RollbackDetected",
    "ServiceUnavailable",
    "SourceFailed",
    "SourceMissing",
    "StorageError",
    "StorageFull",
    "StoreExists",
    "StoreMissing",
    "TargetExists",
    "Unauthenticated",
    "Unauthorized",
    "Unsupported",
    "UnsupportedFormat",
    "UsageError",
    "WriterFailed",
    "WrongKey",
    "told",
]


class KeepstoneError(Exception):
    """Root of the tree."""

    code = "Failed"
    status = 500
    exit_code = 1


class UsageError(KeepstoneError):
    """The request itself makes no sense."""

    code = "BadRequest"
    status = 400
    exit_code = 2


class InvalidPolicy(UsageError):
    """A policy that cannot be carried out. `target`: the part of it, as a path in its JSON document."""

    code = "BMSUserErrorInvalidPolicyInput"

    def __init__(self, message: str, *, target: str) -> None:
        super().__init__(message)
        self.target = target


class InvalidFilter(UsageError):
    """A `$filter` that is not understood."""

    code = "InvalidFilterInQueryString"


class InvalidRequest(UsageError):
    """A request that cannot be carried out as it is. `target`: the part of it, as a path in its JSON document."""

    code = "InvalidRequestContent"

    def __init__(self, message: str, *, target: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.target = target
        if code is not None:
            self.code = code


class Unsupported(UsageError):
    """Something that Azure has and Keepstone has not, or not yet."""

    code = "UserErrorNotSupported"


class NotEmpty(UsageError):
    """Something cannot go while it has others in it."""

    code = "ServiceResourceNotEmptyWithBackendMessage"
    exit_code = 1


class NotFound(KeepstoneError):
    """A named thing does not exist."""

    code = "ResourceNotFound"
    status = 404
    exit_code = 3


class GroupNotFound(NotFound):
    """There is no resource group of this name."""

    code = "ResourceGroupNotFound"


class StoreMissing(NotFound):
    """There is no store at the place named."""

    code = "StoreMissing"
    exit_code = 10


class PointNotFound(NotFound):
    """No recovery point has that name."""

    code = "RecoveryPointNotFound"


class ObjectMissing(NotFound):
    """An object that the store should hold is gone."""

    code = "ObjectMissing"


class SourceMissing(NotFound):
    """What was to be backed up is not there."""

    code = "SourceMissing"


class AlreadyExists(KeepstoneError):
    """A name is taken."""

    code = "AlreadyExists"
    status = 409


class Conflict(AlreadyExists):
    """Something is in a state in which this cannot be done."""

    code = "Conflict"


class PreconditionFailed(AlreadyExists):
    """Something is not, or not any more, as who asks says that he knows it (RFC 9110, 13.1)."""

    code = "PreconditionFailed"
    status = 412


class ObjectExists(AlreadyExists):
    """Put-if-absent found the name taken; the stored object is untouched."""

    code = "ObjectExists"


class StoreExists(AlreadyExists):
    """`init` found a store, or other files, at that place."""

    code = "StoreExists"


class TargetExists(AlreadyExists):
    """A restore would overwrite something that it was not asked to."""

    code = "TargetExists"


class SourceFailed(KeepstoneError):
    """What was to be backed up cannot be read to its end, or became shorter meanwhile; nothing of it was committed."""

    code = "SourceFailed"


class AccessDenied(KeepstoneError):
    """The operating system refused access."""

    code = "AccessDenied"
    status = 403
    exit_code = 5


class WrongKey(KeepstoneError):
    """The passphrase or key file does not open this store."""

    code = "WrongKey"
    status = 403
    exit_code = 12


class FormatError(KeepstoneError):
    """Bytes are not what the format says: damage, forgery or a bug."""

    code = "FormatError"


class CorruptObject(FormatError):
    """A stored object fails its own check."""

    code = "CorruptObject"


class RollbackDetected(FormatError):
    """The store is older than what this machine has already seen of it."""

    code = "RollbackDetected"


class HostileName(FormatError):
    """A name in a manifest would leave the restore target."""

    code = "HostileName"


class UnsupportedFormat(KeepstoneError):
    """The store was written by a foreign or newer version."""

    code = "UnsupportedFormat"


class StorageError(KeepstoneError):
    """The storage below failed; what was acknowledged before is untouched."""

    code = "StorageError"


class StorageFull(StorageError):
    """The storage below has no room left."""

    code = "StorageFull"
    status = 507


class ServiceUnavailable(KeepstoneError):
    """The service does not answer, or cannot for now."""

    code = "ServiceUnavailable"
    status = 503


class RestoreIncomplete(KeepstoneError):
    """What is damaged in the store, or was refused by the operating system, was left out of a restore that is done."""

    code = "RestoreIncomplete"
    exit_code = 4


class LeaseLost(KeepstoneError):
    """This writer was aborted by reclaim; nothing of it became visible. Start the backup again."""

    code = "LeaseLost"
    status = 409
    exit_code = 11


class WriterFailed(KeepstoneError):
    """A part of the backup pipeline broke; nothing was committed."""

    code = "WriterFailed"


class GuardRefused(KeepstoneError):
    """A lock or a guard forbids the operation."""

    code = "GuardRefused"
    status = 403
    exit_code = 6


class JobNotFound(NotFound):
    """No job has this id."""


class JobLost(KeepstoneError):
    """Another worker has this job by now, or it is over: whatever this one does any more does not count."""

    code = "JobLost"
    status = 409
    exit_code = 1


class JobCancelled(KeepstoneError):
    """Somebody asked for the end of this job."""

    code = "JobCancelled"
    status = 409
    exit_code = 1


class Unauthenticated(KeepstoneError):
    """Nobody knows who asks: no token, or one that does not count."""

    code = "AuthenticationFailed"
    status = 401
    exit_code = 5


class Unauthorized(KeepstoneError):
    """Somebody may not do what he asks for."""

    code = "AuthorizationFailed"
    status = 403
    exit_code = 5


class NoOperation(NotFound):
    """Nothing answers a request of this kind. `verbs`: those that its path takes; none where it takes no request."""

    code = "InvalidResourceType"

    def __init__(self, message: str, *, verbs: list[str]) -> None:
        super().__init__(message)
        self.verbs = verbs
        if verbs:
            self.code, self.status = "MethodNotAllowed", 405


def told(code: str, message: str, status: int, otherwise: type[KeepstoneError] = KeepstoneError) -> KeepstoneError:
    """What another process or machine raised, out of what it said of it: of the class that has this code, else of
    `otherwise`."""
    kind = _by_code().get(code, otherwise)
    error = kind.__new__(kind, message)  # some take more than a message where they are made; none of it is told here
    error.code, error.status = code or kind.code, status
    return error


@lru_cache(maxsize=1)
def _by_code() -> dict[str, type[KeepstoneError]]:
    """A code belongs to the class that names it, not to those that have it from there."""
    return {kind.code: kind for kind in _classes(KeepstoneError) if "code" in vars(kind)}


def _classes(root: type[KeepstoneError]) -> Iterator[type[KeepstoneError]]:
    yield root
    for below in root.__subclasses__():
        yield from _classes(below)
