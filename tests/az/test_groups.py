# SPDX-License-Identifier: Apache-2.0
"""Resource groups, from the first to the last."""

from __future__ import annotations

import pytest

from .running import Az
from .serving import LOCATION, Server

pytestmark = pytest.mark.service


def test_a_group_lives(az: Az, server: Server) -> None:
    made = az(f"group create -n Group-1 -l {LOCATION} --tags team=a")

    assert made["id"] == server.group("Group-1")
    assert made["properties"]["provisioningState"] == "Succeeded"
    assert az("group exists -n group-1") is True
    assert az("group update -n group-1 --set tags.team=b")["tags"] == {"team": "b"}
    assert az("group show -n GROUP-1") == {**made, "tags": {"team": "b"}}
    assert "Group-1" in [group["name"] for group in az("group list")]
    assert "Group-1" in az.table("group list")

    az("group delete -n group-1 --yes")

    assert az("group exists -n group-1") is False
    assert "ResourceGroupNotFound" in az.refused("group show -n group-1")


def test_a_region_that_there_is_not_is_refused(az: Az) -> None:
    az(f"group create -n stays -l {LOCATION}")

    assert "cannot move to 'westeurope'" in az.refused("group create -n stays -l westeurope")


def test_a_group_with_a_vault_stays(az: Az) -> None:
    az(f"group create -n full -l {LOCATION}")
    az(f"backup vault create -g full -n vault1 -l {LOCATION}")

    said = az.refused("group delete -n full --yes")

    assert "az backup vault delete -g full -n vault1" in said
    assert az("group exists -n full") is True
