# SPDX-License-Identifier: Apache-2.0
"""Logging in, in each of the ways that the Azure CLI has for machines, and what somebody finds then."""

from __future__ import annotations

from pathlib import Path

import pytest

from .running import Az
from .serving import LOCATION, Server

pytestmark = pytest.mark.service


def test_a_service_principal_finds_its_subscription(az: Az, server: Server) -> None:
    account = az("account show")
    locations = az("account list-locations")

    assert account["id"] == server.subscription
    assert account["tenantId"] == server.tenant
    assert account["user"]["type"] == "servicePrincipal"
    assert [location["name"] for location in locations] == [LOCATION]


def test_a_cloud_knows_its_endpoints(az: Az, server: Server) -> None:
    endpoints = az("cloud show -n Keepstone")["endpoints"]

    assert endpoints["resourceManager"].rstrip("/") == server.url
    assert endpoints["activeDirectory"] == server.url
    assert endpoints["activeDirectoryResourceId"] == f"{server.url}/"


def test_a_wrong_secret_is_refused_in_words(az: Az, server: Server, tmp_path: Path) -> None:
    client = server.principal("Owner").client
    stranger = az.another(tmp_path / "az")

    said = stranger.refused(f"login --service-principal -u {client} -p wrong --tenant {server.tenant}")

    assert "AADSTS7000215: Invalid client secret" in said
    assert "keepstone az-setup" in said


def test_somebody_without_a_role_finds_no_subscription(az: Az, server: Server, tmp_path: Path) -> None:
    nobody = server.principal()
    stranger = az.another(tmp_path / "az")

    said = stranger.refused(f"login --service-principal -u {nobody.client} --tenant {server.tenant} -p", nobody.secret)

    assert "No subscriptions found" in said


def test_as_an_ad_fs_nothing_has_to_be_set(azure: Path, server: Server, tmp_path: Path) -> None:
    someone = server.principal("Owner")
    az = Az(azure / "az", tmp_path / "az", server.ca)

    az(f"cloud register -n Adfs --endpoint-resource-manager {server.url} --endpoint-active-directory {server.url}/adfs")
    az("cloud set -n Adfs")
    (account,) = az.log_in(someone.client, someone.secret, server.tenant)

    assert account["id"] == server.subscription
    assert az("group list") is not None


def test_a_managed_identity_needs_no_secret_of_its_own(az: Az, server: Server, tmp_path: Path) -> None:
    someone = server.principal("Reader")
    machine = az.another(
        tmp_path / "az",
        IDENTITY_ENDPOINT=f"{server.url}/msi/token",
        IDENTITY_HEADER=f"{someone.client}:{someone.secret}",
    )

    (account,) = machine("login --identity")

    assert account["user"]["type"] == "servicePrincipal"
    assert machine("account list-locations")
    assert "AuthorizationFailed" in machine.refused(f"group create -n not-mine -l {LOCATION}")
