# SPDX-License-Identifier: Apache-2.0
"""The certificate of a machine in wrong hands, with everything known that a machine does not know: it opens what the
machine's own jobs name, and nothing else. Of what is somebody else's it learns as much as of what is not there.

What a thief may do is looked for in every operation, so a new one is tried as well.
"""

from __future__ import annotations

import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keepstone.agent.identity import Credentials, Identity, register
from keepstone.agentapi import service, transfers
from keepstone.arm.operations import OPERATIONS
from keepstone.catalogue import credentials as credential_rows
from keepstone.env import Env
from keepstone.errors import AccessDenied
from keepstone.identity import Authority, Issued
from keepstone.remote.calls import Calls
from keepstone.remote.wire import (
    Beat,
    Begin,
    Pulse,
    Pulsed,
    decode,
    encode,
)
from tests.agents.living import Living
from tests.agents.stealing import (
    CALLS,
    VERSION,
    Busy,
    Connect,
    Connection,
    Names,
    Scene,
    anonymous,
    certified,
    crossed,
    filled,
    is_out,
    let_in,
    places,
    registration,
    renewal,
    tokens,
    unchanged,
)
from tests.cli.services import until

pytestmark = pytest.mark.agents


@pytest.fixture
def connect(living: Living) -> Iterator[Connect]:
    """Connects as whoever has what the context has; as nobody without one."""
    with ExitStack() as stack:

        def make(context: ssl.SSLContext | None = None) -> Connection:
            made = Connection(living.url, context or anonymous(living))
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(scope="module")
def shared(living: Living, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The one that this module looks at, and changes nothing of."""
    made = Scene(living, tmp_path_factory.mktemp("scene"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def scene(shared: Scene) -> Scene:
    """With jobs that are all alive."""
    for one in (shared.mine, shared.theirs, shared.far):
        one.beat()
    return shared


def test_every_call_is_tried() -> None:
    tried = {call(Names.none())[0].partition("?")[0] for call in CALLS.values()}
    assert tried | {"register", "renew", "pulse"} == service.CALLS | transfers.CALLS


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_is_somebody_elses_is_as_if_it_was_not_there(scene: Scene, call: Callable[[Names], Any]) -> None:
    nobody = Names.none()

    with unchanged(scene.living):
        status, content = scene.thief.agent(*call(nobody))
        for other in (scene.theirs, scene.far):
            wrong = (replace(other.names, backup_token=9, restore_token=9), other.names)
            for names in (*wrong, crossed(names=other.names, own=scene.mine.names)):
                answered = scene.thief.agent(*call(names))
                assert (answered[0], names.hidden(answered[1])) == (status, nobody.hidden(content)), names
    assert (status, content) == (200, b"") or status in (404, 409)
    assert status != 409 or b"is over, or somebody else's" in content


def test_the_jobs_kinds_are_not_to_be_exchanged(scene: Scene) -> None:
    """A restore makes no point, and a backup reads none."""
    own = scene.mine.names
    with unchanged(scene.living):
        status, content = scene.thief.agent(
            "sessions/begin", encode(Begin(job=own.restore, token=own.restore_token, kind="files")))  # fmt: skip
        assert (status, b"of another kind" in content) == (400, True)
        status, content = scene.thief.agent(f"points/open?job={own.backup}&token={own.backup_token}", b"")
        assert (status, b"of another kind" in content) == (400, True)


def test_a_pulse_tells_of_ones_own(scene: Scene) -> None:
    """Signs of life for others' jobs keep nobody's alive, and say the same of those that there are none of. What waits
    for others goes to nobody else."""
    for other in (scene.theirs, scene.far):
        scene.living("restore", "files", "-v", other.vault, "-i", other.done, "latest", "--target", "/any", "--no-wait")
    others = (scene.theirs.names, scene.far.names, Names.none())
    beats = [Beat(job, token, line="mine") for of in others
             for job, token in ((of.backup, of.backup_token), (of.restore, of.restore_token))]  # fmt: skip
    with unchanged(scene.living):
        status, content = scene.thief.agent("pulse", encode(Pulse(version="0", beats=beats, room=8, plan=True)))
    assert status == 200
    answer = decode(content, Pulsed)
    assert answer.work == []
    assert [(told.job, told.lost, told.cancelled) for told in answer.told] == [
        (beat.job, True, False) for beat in beats
    ]
    assert answer.plan is not None
    assert {plan.name for plan in answer.plan} <= {str(scene.mine.source), str(scene.mine.done)}


def test_nobody_at_all(scene: Scene, connect: Connect) -> None:
    """Without a certificate, also of the right names."""
    nobody = connect()
    with unchanged(scene.living):
        answers = {nobody.agent(*call(scene.mine.names)) for call in CALLS.values()}
        answers |= {nobody.agent("pulse", encode(Pulse(version="0"))), nobody.agent("nothing", b"")}
    assert {status for status, _ in answers} == {401}
    assert len(answers) == 1


# ARM


def test_the_certificate_is_nothing_to_arm(scene: Scene, connect: Connect) -> None:
    """Every operation is answered as if it was not there, of the machine's own things and of what there is not."""
    nobody = connect()
    headers = [{"Authorization": token} if token else {} for token in tokens(scene).values()]
    asked = [(places(scene, scene.mine), header) for header in headers]
    asked += [(of, headers[0]) for of in (places(scene, scene.theirs), places(scene, scene.far), {})]
    with unchanged(scene.living):
        for operation in OPERATIONS:
            refused = set()
            for of, header in asked:
                path = f"{filled(operation.template, of)}?{VERSION}"
                body = b"{}" if operation.verb in ("PUT", "PATCH", "POST") else b""
                status, content = scene.thief.ask(operation.verb, path, body, **header)
                if operation.action:
                    refused.add((status, operation.verb == "HEAD" or b"AuthenticationFailed" in content))
                else:  # anybody may ask
                    assert status == nobody.ask(operation.verb, path, body, **header)[0]
            assert refused <= {(401, True)}, (operation.name, refused)


# A certificate that was taken away, or is none


@pytest.fixture
def gone(scene: Scene, tmp_path: Path) -> Iterator[Busy]:
    """A busy machine of a test's own."""
    made = Busy(scene.living, f"gone{secrets.token_hex(3)}", "v1", tmp_path)
    yield made
    made.hand.close()


def test_after_it_was_taken_away(scene: Scene, gone: Busy, connect: Connect) -> None:
    """Within seconds, whatever is under way, and whoever has the machine's place then."""
    living, name = scene.living, gone.machine.name
    thief = connect(gone.context)
    thief.agent("pulse", encode(Pulse(version="0", room=0)))  # it is known to those that answer
    assert thief.agent(f"sessions/state?session={gone.names.session}", b"")[0] == 200

    living("container", "revoke", "-n", name, "--yes")

    until(lambda: thief.pulse() == 401, "the end of a stolen certificate")
    ask = f"sessions/state?session={gone.names.session}"
    until(lambda: thief.agent(ask, b"")[0] == 401, "the end of its transfers")
    with unchanged(living):
        assert is_out(thief, gone)
        assert thief.agent("renew", renewal(gone.key))[0] == 401
        assert thief.agent("register", registration(living.root / f"{name}.json", name, gone.key))[0] == 401
        assert thief.agent("register", registration(living.root / f"{name}.json", name))[0] == 401
        status, _ = thief.ask("GET", f"{gone.point}?{VERSION}")
        assert status == 401


def test_after_another_took_its_place(scene: Scene, gone: Busy, connect: Connect) -> None:
    """The machine is there again, with a new key: the old one is nobody's, also where nobody asked in between."""
    living, name = scene.living, gone.machine.name
    thief = connect(gone.context)
    assert thief.pulse() == 200
    file = living.credentials(f"{name}-again")
    living("container", "revoke", "-n", name, "--yes")
    again = register(Env(), gone.machine.home / "again", Credentials.read(file), name, {})
    owner = connect(again.context())
    assert owner.pulse() == 200

    until(lambda: thief.pulse() == 401, "the end of the old key")

    until(lambda: is_out(thief, gone), "the end of its transfers")
    assert thief.agent("renew", renewal(gone.key))[0] == 401
    assert owner.pulse() == 200


def test_after_its_machine_was_taken_out(living: Living, connect: Connect) -> None:
    machine = living.machine(f"out{secrets.token_hex(3)}")
    hand = machine.hand()
    thief = connect(hand.identity.context())
    hand.close()
    status, _ = thief.agent("pulse", encode(Pulse(version="0", wait=2.0)))  # somebody has seen by then that it is there
    assert status == 200

    living("container", "unregister", "-n", machine.name, "--yes")

    until(lambda: thief.pulse() == 401, "the end of its certificate")


def test_certificates_of_other_authorities(scene: Scene, tmp_path: Path) -> None:
    """Also for a machine's own key, and of an authority that calls itself like the service's."""
    own = Authority(Env(), Issued(*[(scene.living.service.root / "tls" / f"ca.{end}").read_bytes()
                                    for end in ("pem", "key")]))  # fmt: skip
    name = own.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    for called in ("somebody", str(name)):
        context = certified(scene.living, tmp_path / "made", scene.mine.key, Authority.create(Env(), called))
        with unchanged(scene.living):
            assert let_in(scene.living, context) == 0
    assert let_in(scene.living, scene.mine.context) == 200


def test_certificates_of_the_services_authority_that_are_no_machines(scene: Scene, tmp_path: Path) -> None:
    living = scene.living
    with unchanged(living):
        assert let_in(living, certified(living, tmp_path / "new", ec.generate_private_key(ec.SECP256R1()))) == 401
        assert let_in(living, certified(living, tmp_path / "over", scene.mine.key, hours=0)) == 0
        tls = living.service.root / "tls"
        context = anonymous(living)
        context.load_cert_chain(tls / "server.pem", tls / "server.key")
        assert let_in(living, context) in (0, 401)


def test_a_machine_is_no_service(living: Living) -> None:
    """Its certificate vouches for no server, whatever the machine is called."""
    machine = living.machine("localhost")
    own = machine.home / "agent" / "state"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own / "machine.pem", own / "machine.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    with listener.accept()[0] as one, context.wrap_socket(one, server_side=True) as secured:
                        secured.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        calls = Calls(Env(threads=0), f"https://localhost:{port}", Identity.load(Env(), own).context, patience=5.0)
        with pytest.raises(AccessDenied, match="is not to be trusted"):
            calls.post("pulse", b"")
        calls.close()
        tls = living.service.root / "tls" / "ca.pem"
        secret = living.root / "secret"
        secret.write_text("any")
        found = ("--endpoint", f"https://localhost:{port}", "--ca", tls, "--client-id", "any", "--secret-file", secret)
        assert "is not vouched for" in living("login", *found, code=5)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)


# Vault credentials


def test_credentials_that_were_used(scene: Scene, connect: Connect) -> None:
    """Nobody else gets in with them: not another machine, and not in the place of the one that did."""
    living = scene.living
    nobody = connect()
    file = living.root / "mine.json"
    with unchanged(living):
        for name in ("mine", "theirs", "new"):
            status, content = nobody.agent("register", registration(file, name))
            assert (status, b"already" in content) == (401, True)
    status, _ = nobody.agent("register", registration(file, "mine", scene.mine.key))
    assert status == 200  # the machine itself, whose answer was lost
    assert let_in(living, scene.mine.context) == 200


def test_credentials_whose_time_is_over(living: Living, connect: Connect) -> None:
    nobody = connect()
    file = living.credentials("late")
    given = Credentials.read(file)
    with living.plane.change() as change:
        mine = credential_rows.c.thumbprint == given.thumbprint.lower()
        past = datetime.now(UTC) - timedelta(seconds=1)
        change.connection.execute(credential_rows.update().where(mine).values(until=past))
    with unchanged(living):
        status, content = nobody.agent("register", registration(file, "late"))
    assert (status, b"ended at" in content) == (401, True)


def test_credentials_of_one_vault_are_none_of_another(scene: Scene, connect: Connect) -> None:
    """The key says which vault. Other credentials' names with it are as good as names of none."""
    living = scene.living
    nobody = connect()
    first, second = living.credentials("for-v1"), living.credentials("for-v2", vault="v2")
    other = Credentials.read(second).thumbprint.lower()
    with unchanged(living):
        asked = {nobody.agent("register", registration(first, "new", thumbprint=of)) for of in (other, "0" * 64)}
    assert len(asked) == 1
    assert asked.pop()[0] == 401
    made = register(Env(), living.root / "moved", Credentials.read(second), "moved", {})
    assert made.vault.endswith("/vaults/v2")
