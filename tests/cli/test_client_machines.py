# SPDX-License-Identifier: Apache-2.0
"""`keepstone` for machines with an agent: their credentials, how they are shown, and what they are to protect."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from keepstone.catalogue import agents as rows
from keepstone.control import agents
from keepstone.control.agents import Facts, Registered
from keepstone.identity import thumbprint
from tests.cli.answering import Answering
from tests.cli.running import Cli

pytestmark = pytest.mark.service
_numbers = count(1)
DER = serialization.Encoding.DER


@pytest.fixture
def vault(service: Answering, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> str:
    """The one that the commands of this test mean; its id."""
    monkeypatch.setenv("KEEPSTONE_DATA", str(service.root))
    name = f"group{next(_numbers)}"
    cli.run("group", "create", "-n", name)
    monkeypatch.setenv("KEEPSTONE_GROUP", name)
    cli.run("vault", "create", "-g", name, "-n", "v1")
    return str(json.loads(cli.run("vault", "show", "-o", "json").out)["id"])


def register(service: Answering, file: Path, name: str) -> Registered:
    """What `keepstone agent register` asks for with the file."""
    told = json.loads(file.read_text())
    key = serialization.load_pem_private_key(told["key"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    own = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.sign(own, hashes.SHA256()).public_bytes(DER)
    facts = Facts(name=name, version="0.2.0", system={"os": "Linux", "release": "6.1", "python": "3.11.9", "cpus": 4})
    with service.plane.change() as change:
        signature = key.sign(csr, ec.ECDSA(hashes.SHA256()))
        return agents.register(change, service.installation.authority(), told["thumbprint"], csr, signature, facts)


def as_json(cli: Cli, *arguments: object) -> Any:
    return json.loads(cli.run(*arguments, "-o", "json").out)


def test_credentials_are_a_file_for_its_owner_alone(cli: Cli, service: Answering, vault: str, tmp_path: Path) -> None:
    file = tmp_path / "web.json"

    ended = cli.run("vault", "credentials", "download", "--file", file, "--days", 3, "--name", "web")

    assert "PRIVATE" not in ended.out + ended.err
    assert (file.stat().st_mode & 0o777, file.stat().st_nlink) == (0o600, 1)
    told = json.loads(file.read_text())
    assert set(told) == {"url", "ca", "vault", "name", "thumbprint", "certificate", "key", "until"}
    assert (told["vault"], told["name"]) == (vault, "web")
    assert told["url"].endswith(service.url.rpartition(":")[2])
    assert told["ca"] == (service.root / "tls" / "ca.pem").read_text()
    made = x509.load_pem_x509_certificate(told["certificate"].encode())
    assert told["thumbprint"] == thumbprint(made.public_bytes(DER))
    assert told["until"].startswith(made.not_valid_after_utc.isoformat()[:19])
    left = made.not_valid_after_utc - service.plane.env.utc()
    assert 71 < left.total_seconds() / 3600 <= 72
    private = serialization.load_pem_private_key(told["key"].encode(), None)
    assert private.public_key() == made.public_key()
    assert "is the service for its own machine" in ended.err
    assert "keepstone agent register --credentials web.json" in ended.err


def test_the_service_has_only_the_certificate(cli: Cli, service: Answering, vault: str, tmp_path: Path) -> None:
    file = tmp_path / "web.json"
    cli.run("vault", "credentials", "download", "--file", file)
    secret = json.loads(file.read_text())["key"].splitlines()[2]  # the first line begins alike in all keys
    for path in service.root.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()


def test_what_is_there_is_not_overwritten(cli: Cli, service: Answering, vault: str, tmp_path: Path) -> None:
    file = tmp_path / "web.json"
    file.write_text("mine")
    before = len(service.asked)
    assert cli.run("vault", "credentials", "download", "--file", file, "--json", code=1).error == "AlreadyExists"
    assert file.read_text() == "mine"
    assert "vault_certificates.create" not in service.asked[before:]
    assert "days" in cli.run("vault", "credentials", "download", "--file", "new", "--days", 11, code=2).err
    assert not (tmp_path / "new").exists()


def test_the_address_for_other_machines(cli: Cli, vault: str, tmp_path: Path) -> None:
    file = tmp_path / "web.json"
    ended = cli.run("vault", "credentials", "download", "--file", file, "--url", "vault.example:9443")
    assert json.loads(file.read_text())["url"] == "https://vault.example:9443"
    assert "own machine" not in ended.err
    assert cli.run("vault", "credentials", "download", "--file", "x", "--url", "http://a", "--json", code=2).error


def test_how_machines_are_shown(cli: Cli, service: Answering, vault: str, tmp_path: Path) -> None:
    for name in ("web", "db"):
        cli.run("vault", "credentials", "download", "--file", tmp_path / name, "--name", name)
        made = register(service, tmp_path / name, name)
    ago = service.plane.env.utc() - 2 * agents.SILENT
    with service.plane.database.change() as connection:
        connection.execute(rows.update().where(rows.c.container == made.container.id).values(seen=ago))

    lines = {line.split()[0]: line for line in cli.run("container", "list").out.splitlines() if "Windows;" in line}
    assert "Healthy" in lines["Windows;web"]
    assert "0.2.0" in lines["Windows;web"]
    assert "Unhealthy" in lines["Windows;db"]
    assert f"{ago:%Y-%m-%dT%H:%M:%S}Z" in lines["Windows;db"]
    shown = cli.run("container", "show", "-n", "DB").out
    assert "Linux 6.1, Python 3.11.9, 4 processors" in shown
    assert "keepstone agent run" in shown
    assert "keepstone agent run" not in cli.run("container", "show", "-n", "web").out


def test_what_a_machine_is_to_protect(cli: Cli, service: Answering, vault: str, tmp_path: Path) -> None:
    cli.run("vault", "credentials", "download", "--file", tmp_path / "web")
    web = register(service, tmp_path / "web", "web").container.id

    cli.run("protection", "enable", "--path", "c:\\Users\\", "-c", "web")
    cli.run("protection", "enable", "--path", "/dev/vg0/data", "-c", "web", "--disk")

    found = {one["properties"]["friendlyName"]: one for one in as_json(cli, "item", "list")}
    assert {name: one["properties"]["workloadType"] for name, one in found.items()} == {
        "C:\\Users": "FileFolder",
        "/dev/vg0/data": "DiskImage",
    }
    cli.run("protection", "backup-now", "-i", "/dev/vg0/data", "--no-wait")
    claim = service.plane.queue.claim("web", ["Backup"], web)
    assert claim is not None
    assert claim.arguments["workload"] == "DiskImage"


def test_a_restore_on_another_machine(cli: Cli, service: Answering, vault: str, tmp_path: Path) -> None:
    cli.run("vault", "credentials", "download", "--file", tmp_path / "web")
    web = register(service, tmp_path / "web", "web").container.id
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("kept")
    cli.run("protection", "enable", "--path", folder)
    cli.run("protection", "backup-now", "-i", folder)
    there = ("restore", "files", "latest", "-i", folder, "--target", "D:\\back", "--target-container", "web")

    assert "web" in cli.run(*there, "--dry-run").out
    cli.run(*there, "--no-wait")

    claim = service.plane.queue.claim("web", ["Restore"], web)
    assert claim is not None
    assert (claim.arguments["target"], claim.arguments["to"]) == ("D:\\back", "web")
    refused = cli.run("restore", "files", "latest", "-i", folder, "--in-place", "--target-container", "web", code=2)
    assert "give --target with --target-container" in refused.err


def test_an_identity_is_taken_away(cli: Cli, service: Answering, vault: str, tmp_path: Path) -> None:
    cli.run("vault", "credentials", "download", "--file", tmp_path / "web")
    register(service, tmp_path / "web", "web")
    cli.run("protection", "enable", "--path", "/srv", "-c", "web")

    assert "not let in any more" in cli.run("container", "revoke", "-n", "web", "--yes").err

    assert as_json(cli, "container", "show", "-n", "web")["properties"]["registrationStatus"] == "NotRegistered"
    assert len(as_json(cli, "item", "list")) == 1
    assert cli.run("container", "revoke", "-n", "web", "--yes", "--json", code=3).error == "ResourceNotFound"
    assert cli.run("protection", "backup-now", "-i", "/srv", "--json", code=1).error == "Conflict"
