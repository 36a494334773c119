# SPDX-License-Identifier: Apache-2.0
"""An installation: the folder of a server, what is made in it at the first start, and how it is opened.

    keepstone.db          the database, unless it is elsewhere
    tls/                  the certificate authority (ca.pem, ca.key) and the server's certificate
    issuer.key            what tokens are signed with
    secrets.key           what secrets in the database are sealed with
    recovery-key.txt      an age identity: it opens the recovery kits of all vaults
    vaults/ keys/ kits/   see `vault/stores.py`
    cache/                what can be rebuilt

Every step of the first start finds what an interrupted one before it made. What an installation is called (its tenant
and subscription) is written last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from keepstone.catalogue import Database, facts
from keepstone.catalogue.migrate import check, migrate
from keepstone.control import people, targets
from keepstone.control.plane import Place, Plane
from keepstone.control.reach import Reach
from keepstone.control.verdicts import judge
from keepstone.crypto import generate_identity, recipient_of
from keepstone.env import Env
from keepstone.errors import Conflict, StoreMissing, UsageError
from keepstone.files import exists, make_folders, names_in, read_file, remove_file
from keepstone.identity import Authority, Issued, Issuer, new_secret
from keepstone.jobs import JobQueue
from keepstone.objects import failure, write_private
from keepstone.vault import Stores

__all__ = ["ADMINISTRATOR", "Installation", "Welcome"]

ADMINISTRATOR = "admin"
DATABASE = "keepstone.db"


@dataclass(frozen=True, slots=True)
class Welcome:
    """What only the first start can tell: the administrator's password, and where the recovery key is."""

    login: str
    password: str = field(repr=False)
    recovery_key: Path


class Installation:
    """The folder `root`. `database`: the URL of another database than its own. `allowed`: the paths of this machine
    that its workers read and write; all where there are none. `snapshots`: see `Plane`; empty for none."""

    def __init__(
        self, env: Env, root: Path, database: str | None = None, allowed: Sequence[str] = (), snapshots: str = ""
    ) -> None:
        self.env = env
        self._snapshots = Path(snapshots) if snapshots else None
        self._allowed = tuple(allowed)
        self.root = root
        self._url = database or f"sqlite:///{root / DATABASE}"

    @property
    def ca(self) -> Path:
        """The certificate that clients are to trust."""
        return self.root / "tls" / "ca.pem"

    @property
    def stores(self) -> Stores:
        """The stores of its vaults. What is made there is sealed to its recovery key."""
        identity = read_file(self.env.fs, self.root / "recovery-key.txt").decode()
        return Stores(self.env, self.root, [recipient_of(identity)])

    def prepare(self) -> Database:
        """Make what is missing, but for what it is called and who administers it; its database. What `failure` makes of
        an `OSError`."""
        for name in ("tls", "keys", "kits", "vaults", "cache"):
            try:
                make_folders(self.env.fs, self.root / name)
            except OSError as error:
                raise failure(error, str(self.root / name)) from error
        self._make("issuer.key", _new_key)
        self._make(targets.KEY, lambda: targets.new_key(self.env))
        self._make("recovery-key.txt", _new_recovery_key)
        self.authority()
        database = Database(self._url)
        try:
            migrate(database)
        except BaseException:
            database.close()
            raise
        return database

    def begin(self, location: str) -> Welcome | None:
        """Make what is missing; what to tell people where this was the first start."""
        database = self.prepare()
        try:
            return self._introduce(database, location)
        finally:
            database.close()

    def plane(self) -> Plane:
        """The control plane of an installation that has begun. `StoreMissing` where there is none."""
        if self._url.startswith("sqlite:///") and not exists(self.env.fs, self.root / DATABASE):
            raise StoreMissing(f"there is no Keepstone service in {self.root}; start one with `keepstone up`")
        database = Database(self._url)
        try:
            check(database)
            with database.look() as connection:
                known = dict(connection.execute(sa.select(facts.c.name, facts.c.value)).all())
            if "subscription" not in known:
                raise StoreMissing(f"the first start of {self.root} did not come to its end; run `keepstone up` again")
        except BaseException:
            database.close()
            raise
        place = Place(known["tenant"], known["subscription"], known["location"])
        queue = JobQueue(database, self.env, ended=partial(judge, self.env))
        reach = Reach(self.root, self._allowed)
        return Plane(self.env, database, queue, self.stores, place, self.root, reach, self._snapshots)

    def issuer(self, tenant: str) -> Issuer:
        """Gives tokens."""
        return Issuer(self.env, read_file(self.env.fs, self.root / "issuer.key"), tenant)

    def certificate(self, names: list[str]) -> tuple[Path, Path]:
        """The server's certificate and key for these names and addresses; renewed where it does not do any more."""
        tls = self.root / "tls"
        paths = tls / "server.pem", tls / "server.key"
        authority = self.authority()
        if all(exists(self.env.fs, path) for path in paths):
            issued = Issued(*(read_file(self.env.fs, path) for path in paths))
            if authority.serves(issued, names):
                return paths
        issued = authority.server(names)
        for path, data in zip(
            reversed(paths), (issued.key, issued.certificate + authority.issued.certificate), strict=True
        ):
            remove_file(self.env.fs, path)
            write_private(self.env, path, data)
        return paths

    def authority(self) -> Authority:
        certificate, key = self.ca, self.ca.with_suffix(".key")
        if not exists(self.env.fs, certificate):
            remove_file(self.env.fs, key)
            made = Authority.create(self.env, "Keepstone vault authority").issued
            write_private(self.env, key, made.key)
            write_private(self.env, certificate, made.certificate)
        return Authority(self.env, Issued(*(read_file(self.env.fs, path) for path in (certificate, key))))

    def _make(self, name: str, content: object) -> None:
        path = self.root / name
        if not exists(self.env.fs, path):
            assert callable(content)
            write_private(self.env, path, content())

    def _check_lost(self) -> None:
        """`Conflict` where there are stores of vaults that no database knows."""
        stores = names_in(self.env.fs, self.root / "vaults")
        if stores:
            raise Conflict(
                f"the database of this service is lost: {self.root / 'vaults'} has the stores of {len(stores)} "
                "vaults that "
                "nobody knows any more. Bring back a copy of the database, or make the vaults anew out of their stores "
                "with `keepstone vault rebuild`"
            )

    def _introduce(self, database: Database, location: str) -> Welcome | None:
        """Name the installation and make its administrator, in one transaction."""
        env = self.env
        stores = Stores(env, self.root)
        place = Place(str(_id(env)), str(_id(env)), location)
        plane = Plane(env, database, JobQueue(database, env), stores, place, self.root)
        with plane.change() as change:
            known = dict(change.connection.execute(sa.select(facts.c.name, facts.c.value)).all())
            if known:
                if location and known["location"] != location:
                    raise UsageError(f"this installation is in '{known['location']}'; leave --location out")
                return None
            self._check_lost()
            for name in ("tenant", "subscription", "location"):
                change.connection.execute(facts.insert().values(name=name, value=getattr(place, name)))
            password = new_secret(env)
            who = people.add(change, "user", ADMINISTRATOR, "Administrator", password)
            people.assign(change, "/", who.id, "Owner")
        return Welcome(ADMINISTRATOR, password, self.root / "recovery-key.txt")


def _id(env: Env) -> UUID:
    return UUID(bytes=env.random(16), version=4)


def _new_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _new_recovery_key() -> bytes:
    identity, recipient = generate_identity()
    return f"# opens the recovery kits of {recipient}; keep a copy away from this machine\n{identity}\n".encode()
