# SPDX-License-Identifier: Apache-2.0
"""Paths, filters and failures as ARM clients use them."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepstone.arm import Routes, failure, parse_filter
from keepstone.arm.filters import moment
from keepstone.errors import InvalidFilter, InvalidPolicy, NoOperation, StoreMissing, UsageError

pytestmark = pytest.mark.service

GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
VAULT = f"{GROUP}/providers/Microsoft.RecoveryServices/vaults/{{vault}}"
ITEM = f"{VAULT}/backupFabrics/{{fabric}}/protectionContainers/{{container}}/protectedItems/{{item}}"


@pytest.fixture
def routes() -> Routes[str]:
    made: Routes[str] = Routes()
    for verb, template in [
        ("GET", "/"),
        ("GET", GROUP),
        ("PUT", GROUP),
        ("GET", f"{GROUP}/providers/Microsoft.RecoveryServices/vaults"),
        ("GET", VAULT),
        ("GET", f"{VAULT}/backupProtectedItems"),
        ("GET", f"{VAULT}/backupProtectedItems/"),
        ("GET", f"{VAULT}/backupJobs/{{job}}"),
        ("GET", f"{VAULT}/backupJobs/operationResults"),
        ("DELETE", ITEM),
        ("GET", f"{GROUP}/providers/Microsoft.Storage/storageAccounts/{{account}}"),
    ]:
        made.add(verb, template, f"{verb} {template}")
    return made


S = "/subscriptions/s/resourceGroups/G"
V = f"{S}/providers/Microsoft.RecoveryServices/vaults/My-Vault"


def test_case_counts_in_names_only(routes: Routes[str]) -> None:
    path = "/SUBSCRIPTIONS/s/resourcegroups/G/Providers/microsoft.recoveryservices/VAULTS/My-Vault"

    assert routes.find("GET", path) == (f"GET {VAULT}", {"subscription": "s", "group": "G", "vault": "My-Vault"})


def test_two_slashes_are_one_but_the_last_one_counts(routes: Routes[str]) -> None:
    storage = f"{S}/providers/Microsoft.Storage/storageAccounts//sa1"

    assert routes.find("GET", storage)[1]["account"] == "sa1"
    assert routes.find("GET", f"{V}//backupProtectedItems")[0] == f"GET {VAULT}/backupProtectedItems"
    assert routes.find("GET", f"{V}/backupProtectedItems/")[0] == f"GET {VAULT}/backupProtectedItems/"
    assert routes.find("GET", f"{V}/")[0] == f"GET {VAULT}"  # where there is none with a slash


def test_names_may_have_anything_in_them(routes: Routes[str]) -> None:
    path = f"{V}/backupFabrics/Azure/protectionContainers/IaasVMContainer;v2;rg;vm%201/protectedItems/VM%3Bv2%2Frg"
    values = routes.find("DELETE", path)[1]

    assert values["container"] == "IaasVMContainer;v2;rg;vm 1"
    assert values["item"] == "VM;v2/rg"


def test_a_fixed_segment_goes_before_a_name(routes: Routes[str]) -> None:
    assert routes.find("GET", f"{V}/backupJobs/operationResults")[0].endswith("operationResults")
    assert routes.find("GET", f"{V}/backupJobs/x")[0].endswith("{job}")


def test_what_nothing_answers(routes: Routes[str]) -> None:
    with pytest.raises(NoOperation, match="does not take POST, but GET, PUT") as raised:
        routes.find("POST", S)
    assert (raised.value.status, raised.value.code, raised.value.verbs) == (405, "MethodNotAllowed", ["GET", "PUT"])
    for path in (f"{V}/nothing", f"{V}/nothing/", f"{V}/backupJobs/", "", "x", "/a" * 5000):
        with pytest.raises(NoOperation, match="nothing answers") as raised:
            routes.find("GET", path)
        assert (raised.value.status, raised.value.code) == (404, "InvalidResourceType")


def test_every_route_is_there_once(routes: Routes[str]) -> None:
    assert len(list(routes)) == 11
    with pytest.raises(UsageError, match="two routes for GET"):
        routes.add("GET", VAULT.upper().replace("{SUBSCRIPTION}", "{subscription}").replace("{GROUP}", "{group}")
                   .replace("{VAULT}", "{vault}"), "x")  # fmt: skip
    with pytest.raises(UsageError, match="by another name"):
        routes.add("GET", "/subscriptions/{id}", "x")


@given(st.text(max_size=60))
def test_any_path_is_answered_or_not(path: str) -> None:
    made: Routes[int] = Routes()
    made.add("GET", "/a/{b}", 1)
    with contextlib.suppress(NoOperation):
        assert made.find("GET", path)[0] == 1


KEYS = ("backupManagementType", "itemType", "startTime")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("   ", {}),
        ("backupManagementType eq 'AzureIaasVM'", {"backupManagementType": "AzureIaasVM"}),
        (
            "backupmanagementtype EQ 'AzureWorkLoad' AND itemType eq 'O''Brien'",
            {"backupManagementType": "AzureWorkLoad", "itemType": "O'Brien"},
        ),
        (
            "startTime eq '2026-11-26 01:00:00 PM' and itemType eq ''",
            {"startTime": "2026-11-26 01:00:00 PM", "itemType": ""},
        ),
        (" itemType  eq  'a and b eq c' ", {"itemType": "a and b eq c"}),
    ],
)
def test_filters(text: str, found: dict[str, str]) -> None:
    assert parse_filter(text, KEYS) == found


@pytest.mark.parametrize(
    "text",
    [
        "itemType",
        "itemType eq VM",
        "itemType eq 'VM",
        "itemType ne 'VM'",
        "itemType eq 'VM' or itemType eq 'SQL'",
        "itemType eq 'VM' and",
        "itemType eq 'VM'itemType eq 'VM'",
        "itemType eq 'VM' and itemType eq 'VM'",
        "(itemType eq 'VM')",
        "other eq 'VM'",
        "itemType eq '" + "x" * 5000 + "'",
    ],
)
def test_filters_that_are_none(text: str) -> None:
    with pytest.raises(InvalidFilter, match=r"\$filter"):
        parse_filter(text, KEYS)


@given(st.text(max_size=60))
def test_any_filter_is_one_or_says_why_not(text: str) -> None:
    try:
        parse_filter(text, KEYS)
    except InvalidFilter as error:
        assert str(error)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-26 01:00:00 PM",
        "2026-11-26 13:00:00",
        "2026-11-26T13:00:00Z",
        "2026-11-26T13:00:00.0000000Z"[:23] + "Z",
    ],
)
def test_moments(text: str) -> None:
    assert moment(text, "startTime") == datetime(2026, 11, 26, 13, tzinfo=UTC)


def test_a_moment_that_is_none() -> None:
    with pytest.raises(InvalidFilter, match="startTime 'noon'"):
        moment("noon", "startTime")


def test_failures_say_what_to_do_and_nothing_of_faults() -> None:
    assert failure(InvalidPolicy("count is 0", target="properties.x.count"), "r") == (
        400,
        {"error": {"code": "BMSUserErrorInvalidPolicyInput", "message": "count is 0", "target": "properties.x.count"}},
    )
    assert failure(StoreMissing("there is none"), "r")[0] == 404
    status, body = failure(ZeroDivisionError("secret"), "request-7")
    assert status == 500
    assert "request-7" in body["error"]["message"]
    assert "secret" not in str(body)
