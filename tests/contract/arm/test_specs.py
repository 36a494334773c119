# SPDX-License-Identifier: Apache-2.0
"""The validator finds every mistake and no other: on two small documents of our own, then on Microsoft's."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from .schemas import FORMATS, Node, Problem, Schemas
from .specs import Operation, Specs, location

pytestmark = pytest.mark.service

GONE = object()


def changed(body: Any, path: str, value: Any) -> Any:
    """The body with one thing different; `path` is `a.b.0.c`, `GONE` takes it away."""
    if not path:
        return value
    body = copy.deepcopy(body)
    at = body
    *way, last = [int(key) if key.isdigit() else key for key in path.split(".")]
    for key in way:
        at = at[key]
    if value is GONE:
        del at[last]
    else:
        at[last] = value
    return body


def places(problems: list[Problem]) -> list[str]:
    return [f"{problem.kind} at {problem.path}" for problem in problems]


# --- a zoo: one file of operations in two versions, one of shared types

ERROR = {"description": "a failure", "schema": {"$ref": "../../common/types.json#/definitions/Error"}}
NAME = {"name": "name", "in": "path", "required": True, "type": "string"}
ANIMAL = {"$ref": "#/definitions/Animal"}

OLD = {
    "basePath": "/",
    "info": {"version": "2031-01-01-preview"},
    "paths": {
        "/zoos/{zoo}/animals/{name}": {
            "get": {"operationId": "Animals_Old", "responses": {"204": {"description": "gone"}}}
        },
        "/zoos/{zoo}/animals/": {"get": {"operationId": "Animals_Far", "responses": {"204": {"description": "none"}}}},
    },
}
NEW: dict[str, Any] = {
    "info": {"version": "2031-01-01"},
    "responses": {"Animal": {"description": "it", "schema": ANIMAL}},
    "parameters": {"Animal": {"name": "animal", "in": "body", "required": True, "schema": ANIMAL}},
    "paths": {
        "/zoos/{zoo}/animals/{name}": {
            "parameters": [NAME, {"$ref": "#/parameters/Animal"}],
            "get": {
                "operationId": "Animals_Get",
                "parameters": [{"name": "body", "in": "query", "type": "string"}],
                "responses": {"200": {"$ref": "#/responses/Animal"}, "409": {"description": "busy"}, "default": ERROR},
                "x-ms-examples": {"A dog": {"$ref": "./examples/Nowhere.json"}},
            },
            "put": {"responses": {"200": {"$ref": "#/responses/Animal"}, "202": {"description": "on its way"}}},
            "delete": {"responses": {"204": {"description": "gone", "headers": {"Last-Words": {"type": "string"}}}}},
        },
        "/zoos/{zoo}/animals": {
            "get": {
                "operationId": "Animals_List",
                "responses": {"200": {"description": "all", "schema": {"type": "array", "items": ANIMAL}}},
            }
        },
        "/zoos/{zoo}/animals/all": {"get": {"operationId": "Animals_All", "responses": {"204": {"description": "-"}}}},
    },
    "x-ms-paths": {"/zoos/{zoo}/animals?kind=bird": {"get": {"operationId": "Birds_List", "responses": {}}}},
    "definitions": {
        "Thing": {
            "properties": {"id": {"type": "string", "readOnly": True}, "label": {"type": "string", "maxLength": 9}},
            "required": ["id", "label"],
        },
        "Animal": {
            "allOf": [{"$ref": "#/definitions/Thing"}],
            "discriminator": "kind",
            "required": ["kind"],
            "properties": {
                "kind": {"type": "string", "enum": ["Invalid", "dog", "hound"]},
                "born": {"type": "string", "format": "date-time"},
                "sleeps": {"type": "string", "format": "duration"},
                "chip": {"type": "string", "format": "uuid"},
                "photo": {"type": "string", "format": "byte"},
                "legs": {"type": "integer", "format": "int32", "minimum": 0},
                "steps": {"type": "integer", "format": "int64"},
                "weight": {"type": "number", "format": "double"},
                "tame": {"type": "boolean"},
                "cage": {"type": "string", "pattern": "^[a-z]+$"},
                "mood": {"enum": ["calm", "cross"], "x-ms-enum": {"name": "Mood", "modelAsString": True}},
                "sex": {"type": "string", "enum": ["f", "m"], "x-ms-enum": {"name": "Sex", "modelAsString": False}},
                "meals": {
                    "type": "array",
                    "maxItems": 3,
                    "items": {"$ref": "../../common/types.json#/definitions/Meal"},
                },
                "tags": {"type": "object", "additionalProperties": {"type": "string"}},
                "notes": {"type": "object"},
                "anything": {},
                "names": {"type": "array", "items": {"type": "string", "x-nullable": True}},
                "enemy": {"$ref": "#/definitions/Cat"},
                "mother": {"allOf": [ANIMAL], "description": "a nameless schema that only extends", "readOnly": True},
            },
        },
        "Dog": {
            "allOf": [ANIMAL],
            "x-ms-discriminator-value": "dog",
            "properties": {"barks": {"type": "boolean"}},
        },
        "Hound": {
            "allOf": [{"$ref": "#/definitions/Dog"}],
            "x-ms-discriminator-value": "hound",
            "properties": {"prey": {"type": "string"}},
            "required": ["prey"],
        },
        "Cat": {"allOf": [ANIMAL], "x-ms-discriminator-value": "cat"},
        "Bird": {
            "allOf": [ANIMAL],
            "x-ms-discriminator-value": "bird",
            "discriminator": "flight",
            "required": ["flight"],
            "properties": {"flight": {"type": "string"}, "perch": {"$ref": "#/definitions/Bird~1Perch%20"}},
        },
        "Swift": {"allOf": [{"$ref": "#/definitions/Bird"}], "properties": {"speed": {"type": "integer"}}},
        "Bird/Perch ": {"additionalProperties": False, "properties": {"height": {"type": "integer"}}},
    },
}
TYPES = {
    "definitions": {
        "Error": {"properties": {"error": {"$ref": "#/definitions/Detail"}}, "required": ["error"]},
        "Detail": {"properties": {"code": {"type": "string"}}},
        "Meal": {
            "type": "object",
            "properties": {"of": {"type": "string"}, "id": {"type": "string", "readOnly": True}},
            "additionalProperties": True,
        },
    }
}

LASSIE: dict[str, Any] = {
    "id": "1",
    "label": "Lassie",
    "kind": "hound",
    "prey": "hares",
    "barks": True,
    "born": "2029-02-28T12:00:00.1234567+02:00",
    "sleeps": "P1DT2H3.5S",
    "chip": "01234567-89ab-cdef-0123-456789ABCDEF",
    "photo": "aGk=",
    "legs": 4,
    "steps": 2**40,
    "weight": 30.5,
    "tame": True,
    "cage": "west",
    "mood": "calm",
    "sex": "f",
    "meals": [{"of": "meat", "at": "noon"}, {"of": None}],
    "tags": {"a": "b", "c": None},
    "notes": {"any": ["thing"]},
    "anything": 7,
    "names": ["Lass", None],
    "enemy": {"id": "4", "label": "Tom", "kind": "cat"},
    "mother": {"id": "2", "label": "Bess", "kind": "dog", "barks": None, "born": "0001-01-01T00:00:00"},
}
LASSIE_AT = "/zoos/north/animals/lassie"

MISTAKES = [
    ("", [], "type at $"),
    ("", None, "required at $"),
    ("id", GONE, "required at $.id"),
    ("id", None, "type at $.id"),
    ("prey", GONE, "required at $.prey"),
    ("label", "Lassie comes home", "limit at $.label"),
    ("kind", GONE, "discriminator at $.kind"),
    ("kind", None, "discriminator at $.kind"),
    ("kind", ["dog"], "discriminator at $.kind"),
    ("kind", "Dog", "discriminator at $.kind"),
    ("kind", "Animal", "discriminator at $.kind"),
    ("kind", "Invalid", "discriminator at $.kind"),
    ("kind", "dog", "unknown at $.prey"),
    ("mother.prey", "hares", "unknown at $.mother.prey"),
    ("mother.kind", "wolf", "discriminator at $.mother.kind"),
    ("enemy.kind", "dog", "discriminator at $.enemy.kind"),
    ("mother.barks", 1, "type at $.mother.barks"),
    ("born", "2029-02-29T12:00:00Z", "format at $.born"),
    ("born", "2029-02-28T12:00:00", "format at $.born"),
    ("born", "2029-02-28 12:00:00Z", "format at $.born"),
    ("born", "2029-02-28T12:00:00+24:00", "format at $.born"),
    ("sleeps", "02:03:00", "format at $.sleeps"),
    ("sleeps", "P", "format at $.sleeps"),
    ("sleeps", "P1DT", "format at $.sleeps"),
    ("chip", "0123456789abcdef0123456789ABCDEF", "format at $.chip"),
    ("photo", "aGk", "format at $.photo"),
    ("photo", "aG k=", "format at $.photo"),
    ("photo", "é", "format at $.photo"),
    ("legs", 2**31, "format at $.legs"),
    ("legs", -1, "limit at $.legs"),
    ("legs", True, "type at $.legs"),
    ("legs", 4.0, "type at $.legs"),
    ("legs", "4", "type at $.legs"),
    ("steps", 2**63, "format at $.steps"),
    ("weight", "30", "type at $.weight"),
    ("tame", "true", "type at $.tame"),
    ("cage", "West", "limit at $.cage"),
    ("mood", "Calm", "enum at $.mood"),
    ("mood", 7, "type at $.mood"),
    ("sex", "F", "value at $.sex"),
    ("meals", {}, "type at $.meals"),
    ("meals", [{}] * 4, "limit at $.meals"),
    ("meals.1", None, "type at $.meals[1]"),
    ("meals.1.of", 7, "type at $.meals[1].of"),
    ("tags.a b", 7, "type at $.tags['a b']"),
    ("notes", 7, "type at $.notes"),
    ("Tame", True, "unknown at $.Tame"),
]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Specs:
    root = tmp_path_factory.mktemp("zoo")
    for name, document in {
        "preview/2031/zoo.json": OLD,
        "stable/2031/zoo.json": NEW,
        "common/types.json": TYPES,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    (root / "examples").mkdir()
    (root / "examples" / "Dog.json").write_text("nobody reads this")
    return Specs.load(root)


def test_a_right_answer_has_no_problem(zoo: Specs) -> None:
    assert zoo.check_response("GET", LASSIE_AT, 200, LASSIE) == []


@pytest.mark.parametrize(("path", "value", "expected"), MISTAKES)
def test_every_mistake_is_found_where_it_is(zoo: Specs, path: str, value: Any, expected: str) -> None:
    problems = zoo.check_response("GET", LASSIE_AT, 200, changed(LASSIE, path, value))

    assert places(problems) == [expected]


@pytest.mark.parametrize("name", [name for name in LASSIE if name not in ("id", "label", "kind", "prey")])
def test_what_is_not_required_may_be_null_or_absent(zoo: Specs, name: str) -> None:
    for value in (None, GONE):
        assert zoo.check_response("GET", LASSIE_AT, 200, changed(LASSIE, name, value)) == []


def test_a_problem_says_what_is_wrong(zoo: Specs) -> None:
    body = changed(changed(LASSIE, "mother.kind", "wolf"), "Tame", True)

    assert zoo.check_response("GET", LASSIE_AT, 200, body) == [
        "discriminator at $.mother.kind: 'wolf' is no Animal; there are bird, cat, dog, hound",
        "unknown at $.Tame: the schema has tame",
    ]


def test_a_discriminator_beneath_a_discriminator(zoo: Specs) -> None:
    swift = {"id": "3", "label": "Sue", "kind": "bird", "flight": "Swift", "speed": 111, "perch": {"height": 3}}

    assert zoo.check_response("GET", LASSIE_AT, 200, swift) == []
    for path, value, expected in [
        ("flight", GONE, "discriminator at $.flight"),
        ("flight", "bird", "discriminator at $.flight"),
        ("kind", "Swift", "discriminator at $.kind"),
        ("speed", "fast", "type at $.speed"),
        ("perch.width", 3, "unknown at $.perch.width"),
    ]:
        assert places(zoo.check_response("GET", LASSIE_AT, 200, changed(swift, path, value))) == [expected]


def test_what_a_caller_allows(zoo: Specs) -> None:
    body = [changed(changed(LASSIE, "mood", "Calm"), "age", 7)] * 2
    at = "/zoos/north/animals"

    assert places(zoo.check_response("GET", at, 200, body, allow=["unknown"])) == [
        "enum at $[0].mood",
        "enum at $[1].mood",
    ]
    assert places(zoo.check_response("GET", at, 200, body, allow=["enum", "unknown at $[*].years"])) == [
        "unknown at $[0].age",
        "unknown at $[1].age",
    ]
    assert zoo.check_response("GET", at, 200, body, allow=["enum at $[*].mood", "unknown at $[*].age"]) == []


def test_statuses_and_their_bodies(zoo: Specs) -> None:
    error = {"error": {"code": "Busy"}}

    def found(verb: str, status: int, body: Any = None) -> list[str]:
        return places(zoo.check_response(verb, LASSIE_AT, status, body))

    assert found("GET", 204) == ["status at $"]
    assert found("GET", 404, error) == []
    assert found("GET", 409, error) == []
    assert found("GET", 404) == ["required at $"]
    assert found("GET", 404, {"code": "NotFound"}) == ["required at $.error", "unknown at $.code"]
    assert found("PUT", 404, error) == ["status at $"]
    assert found("PUT", 202) == []
    assert found("PUT", 202, LASSIE) == ["unknown at $"]


def test_headers(zoo: Specs) -> None:
    json_ = {"content-type": "application/json; charset=utf-8"}

    def found(verb: str, status: int, body: Any, headers: dict[str, str]) -> list[str]:
        return list(zoo.check_response(verb, LASSIE_AT, status, body, headers))

    assert found("DELETE", 204, None, {"last-words": "wuff"}) == []
    assert found("DELETE", 204, None, json_) == ["header at $: Last-Words is missing"]
    assert found("PUT", 202, None, {"Azure-AsyncOperation": "https://…"}) == []
    assert found("PUT", 202, None, {"LOCATION": "https://…"}) == []
    assert found("PUT", 202, None, {"Retry-After": "1"})[0].startswith("header at $: a 202 says in")
    assert found("GET", 200, LASSIE, json_) == []
    assert found("GET", 200, LASSIE, {}) == ["header at $: Content-Type is not application/json"]


def test_requests(zoo: Specs) -> None:
    body = changed(changed(changed(LASSIE, "id", GONE), "mother", GONE), "enemy.id", GONE)

    assert zoo.check_request("PUT", LASSIE_AT, body) == []
    assert places(zoo.check_request("PUT", LASSIE_AT, changed(LASSIE, "meals.0.id", "7"))) == [
        "readonly at $.id",
        "readonly at $.meals[0].id",
        "readonly at $.enemy.id",
        "readonly at $.mother",
    ]
    assert places(zoo.check_request("PUT", LASSIE_AT, changed(body, "label", GONE))) == ["required at $.label"]
    assert places(zoo.check_request("PUT", LASSIE_AT, changed(body, "legs", "4"))) == ["type at $.legs"]
    assert places(zoo.check_request("PUT", LASSIE_AT)) == ["required at $"]
    assert zoo.check_request("GET", "/zoos/north/animals") == []
    assert places(zoo.check_request("GET", "/zoos/north/animals", {})) == ["unknown at $"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/zoos/north/animals/lassie", "Animals_Get"),
        ("/ZOOS/north/Animals/Lassie", "Animals_Get"),
        ("/zoos/north/animals/lassie?api-version=2031-01-01-preview", "Animals_Old"),
        ("/zoos/north/animals/lassie?api-version=2032-01-01", "Animals_Get"),
        ("/zoos/north/animals/all", "Animals_All"),
        ("/zoos/north/animals", "Animals_List"),
        ("/zoos/north/animals?kind=fish", "Animals_List"),
        ("/zoos/north/animals?x=y&kind=bird", "Birds_List"),
        ("/zoos/north/animals/", "Animals_Far"),
    ],
)
def test_a_path_has_one_operation(zoo: Specs, path: str, expected: str) -> None:
    assert zoo.find("get", path).operation_id == expected


@pytest.mark.parametrize(
    "path", ["/zoos//animals", "/zoos/a/b/animals", "/zoos/a/animals/b/c", "/x/zoos/a/animals", "/"]
)
def test_a_path_of_no_operation(zoo: Specs, path: str) -> None:
    with pytest.raises(LookupError, match="no document describes GET"):
        zoo.find("GET", path)


def test_operations_are_listed_file_by_file(zoo: Specs) -> None:
    found = zoo.operations()

    assert len(found) == 8
    assert (found[0].verb, found[0].template) == ("GET", "/zoos/{zoo}/animals/{name}")
    assert (found[0].operation_id, found[0].api_version) == ("Animals_Old", "2031-01-01-preview")
    assert {one.file for one in found} == {"preview/2031/zoo.json", "stable/2031/zoo.json"}


def test_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no operation is described beneath"):
        Specs.load(tmp_path)


def test_a_reference_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        json.dumps(
            {
                "info": {"version": "2030-01-01"},
                "paths": {"/a": {"get": {"responses": {"200": {"schema": {"$ref": "b.json#/definitions/B"}}}}}},
            }
        )
    )
    specs = Specs.load(tmp_path)

    with pytest.raises(LookupError, match=r"the reference b\.json#/definitions/B leads nowhere"):
        specs.check_response("GET", "/a", 200, {})


def test_where_the_documents_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEEPSTONE_SPECS", str(tmp_path))
    assert location() == tmp_path.resolve()

    monkeypatch.delenv("KEEPSTONE_SPECS")
    assert location().parts[-2:] == ("shared", "specs")


# --- Microsoft's documents

VAULT_AT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/v"
ITEM_AT = (
    f"{VAULT_AT}/backupFabrics/Azure/protectionContainers/VMAppContainer;Compute;g;m/protectedItems/SQLDataBase;i;d"
)

VAULT = {
    "id": VAULT_AT,
    "name": "v",
    "type": "Microsoft.RecoveryServices/vaults",
    "location": "cellar",
    "etag": None,
    "tags": {"team": "archive"},
    "sku": {"name": "RS0", "tier": "Standard"},
    "identity": {"type": "SystemAssigned", "principalId": "p", "tenantId": "t"},
    "properties": {
        "provisioningState": "Succeeded",
        "publicNetworkAccess": "Enabled",
        "securitySettings": {
            "immutabilitySettings": {"state": "Unlocked"},
            "softDeleteSettings": {"softDeleteState": "Enabled", "softDeleteRetentionPeriodInDays": 30},
        },
        "redundancySettings": {"standardTierStorageRedundancy": "LocallyRedundant", "crossRegionRestore": "Disabled"},
    },
}
POLICY = {
    "id": f"{VAULT_AT}/backupPolicies/nightly",
    "name": "nightly",
    "type": "Microsoft.RecoveryServices/vaults/backupPolicies",
    "properties": {
        "backupManagementType": "AzureIaasVM",
        "protectedItemsCount": 2,
        "policyType": "V2",
        "timeZone": "W. Europe Standard Time",
        "instantRpRetentionRangeInDays": 7,
        "schedulePolicy": {
            "schedulePolicyType": "SimpleSchedulePolicyV2",
            "scheduleRunFrequency": "Daily",
            "dailySchedule": {"scheduleRunTimes": ["2026-11-26T22:30:00Z"]},
        },
        "retentionPolicy": {
            "retentionPolicyType": "LongTermRetentionPolicy",
            "dailySchedule": {
                "retentionTimes": ["2026-11-26T22:30:00Z"],
                "retentionDuration": {"count": 14, "durationType": "Days"},
            },
            "yearlySchedule": None,
        },
    },
}
JOB = {
    "id": f"{VAULT_AT}/backupJobs/j",
    "name": "j",
    "type": "Microsoft.RecoveryServices/vaults/backupJobs",
    "properties": {
        "jobType": "MabJob",
        "entityFriendlyName": "C:\\",
        "backupManagementType": "MAB",
        "workloadType": "FileFolder",
        "operation": "Backup",
        "status": "Completed",
        "startTime": "2026-11-26T22:30:00.5Z",
        "endTime": "2026-11-26T22:41:12Z",
        "duration": "PT11M11.5S",
        "activityId": "a",
        "actionsInfo": ["Retriable"],
        "errorDetails": [{"errorString": "a file was open", "recommendations": ["close it"]}],
        "extendedInfo": {
            "tasksList": [{"taskId": "Copy", "status": "Completed", "duration": "PT11M"}],
            "propertyBag": {"Data Transferred": "3 MB"},
        },
    },
}
POINT = {
    "id": f"{ITEM_AT}/recoveryPoints/7",
    "name": "7",
    "properties": {
        "objectType": "AzureWorkloadSQLPointInTimeRecoveryPoint",
        "recoveryPointTimeInUTC": "2026-11-26T22:41:12Z",
        "type": "Log",
        "recoveryPointTierDetails": [{"type": "HardenedRP", "status": "Valid"}],
        "recoveryPointMoveReadinessInfo": {"ArchivedRP": {"isReadyForMove": False, "additionalInfo": None}},
        "timeRanges": [{"startTime": "2026-11-25T22:41:12Z", "endTime": "2026-11-26T22:41:12Z"}],
    },
}

ANSWERS: dict[str, tuple[str, dict[str, Any], list[tuple[str, Any, str]]]] = {
    "vault": (
        VAULT_AT,
        VAULT,
        [
            ("location", GONE, "required at $.location"),
            ("location", None, "type at $.location"),
            ("sku.name", "Basic", "enum at $.sku.name"),
            ("identity.type", GONE, "required at $.identity.type"),
            ("tags.team", 7, "type at $.tags.team"),
            (
                "properties.securitySettings.softDeleteSettings.softDeleteRetentionPeriodInDays",
                "30",
                "type at $.properties.securitySettings.softDeleteSettings.softDeleteRetentionPeriodInDays",
            ),
            ("properties.ProvisioningState", "Succeeded", "unknown at $.properties.ProvisioningState"),
        ],
    ),
    "policy of virtual machines": (
        f"{VAULT_AT}/backupPolicies/nightly",
        POLICY,
        [
            ("properties.backupManagementType", GONE, "discriminator at $.properties.backupManagementType"),
            ("properties.backupManagementType", "AzureIaaSVM", "discriminator at $.properties.backupManagementType"),
            ("properties.workLoadType", "VM", "unknown at $.properties.workLoadType"),
            (
                "properties.schedulePolicy.schedulePolicyType",
                "SimpleSchedulePolicy",
                "unknown at $.properties.schedulePolicy.dailySchedule",
            ),
            (
                "properties.schedulePolicy.dailySchedule.scheduleRunTimes.0",
                "22:30",
                "format at $.properties.schedulePolicy.dailySchedule.scheduleRunTimes[0]",
            ),
            (
                "properties.retentionPolicy.dailySchedule.retentionDuration.durationType",
                "Day",
                "enum at $.properties.retentionPolicy.dailySchedule.retentionDuration.durationType",
            ),
        ],
    ),
    "job of a MARS agent": (
        f"{VAULT_AT}/backupJobs/j",
        JOB,
        [
            ("properties.jobType", "AgentJob", "discriminator at $.properties.jobType"),
            ("properties.duration", "00:11:11", "format at $.properties.duration"),
            ("properties.actionsInfo.0", "Cancelable", "value at $.properties.actionsInfo[0]"),
            ("properties.errorDetails.0.errorCode", 7, "unknown at $.properties.errorDetails[0].errorCode"),
            (
                "properties.extendedInfo.propertyBag.Data Transferred",
                3,
                "type at $.properties.extendedInfo.propertyBag['Data Transferred']",
            ),
        ],
    ),
    "recovery point of a database": (
        f"{ITEM_AT}/recoveryPoints/7",
        POINT,
        [
            ("properties.objectType", "AzureWorkloadSQLRecoveryPoint", "unknown at $.properties.timeRanges"),
            ("properties.objectType", "RecoveryPoint", "discriminator at $.properties.objectType"),
            ("properties.timeRanges.0.startTime", 7, "type at $.properties.timeRanges[0].startTime"),
            (
                "properties.recoveryPointMoveReadinessInfo.ArchivedRP.isReadyForMove",
                "no",
                "type at $.properties.recoveryPointMoveReadinessInfo.ArchivedRP.isReadyForMove",
            ),
        ],
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_as_published(specs: Specs, name: str) -> None:
    path, body, mistakes = ANSWERS[name]

    assert specs.check_response("GET", path, 200, body) == []
    for at, value, expected in mistakes:
        assert places(specs.check_response("GET", path, 200, changed(body, at, value))) == [expected]


def test_a_policy_as_a_request(specs: Specs) -> None:
    body = {"properties": POLICY["properties"]}

    assert specs.check_request("PUT", f"{VAULT_AT}/backupPolicies/nightly", body) == []
    assert places(specs.check_request("PUT", f"{VAULT_AT}/backupPolicies/nightly", {"name": "nightly", **body})) == [
        "readonly at $.name"
    ]


def test_reads_of_the_other_region_differ_by_a_slash(specs: Specs) -> None:
    for path in (f"{VAULT_AT}/backupProtectedItems", f"{ITEM_AT}/recoveryPoints"):
        here, there = specs.find("GET", path), specs.find("GET", path + "/")
        assert "Crr" not in here.operation_id
        assert "Crr" in there.operation_id


def test_every_operation_is_found_by_its_path(specs: Specs) -> None:
    def key(operation: Operation) -> tuple[str, str, str]:
        return operation.verb, operation.template.casefold(), operation.api_version

    operations = specs.operations()

    assert operations
    for operation in operations:
        path = f"{operation.template.replace('{', '').replace('}', '')}?api-version={operation.api_version}"
        assert key(specs.find(operation.verb, path)) == key(operation)


def test_the_documents_use_nothing_that_the_validator_does_not_know(specs: Specs) -> None:
    """Every reference of theirs leads somewhere, examples apart, and every format is checked."""
    schemas = Schemas(sorted(location().rglob("*.json")))
    formats: set[tuple[str, str]] = set()
    references = 0

    def walk(node: Node) -> None:
        nonlocal references
        if isinstance(node.raw, dict):
            if isinstance(node.raw.get("$ref"), str):
                schemas.resolve(node)
                references += 1
            if isinstance(node.raw.get("format"), str):
                formats.add((node.raw["type"], node.raw["format"]))
        for key in node.raw if isinstance(node.raw, dict) else range(len(node.raw)):
            if key != "x-ms-examples" and isinstance(node.raw[key], dict | list):
                walk(node.at(key))

    for file in {operation.file for operation in specs.operations()}:
        walk(schemas.document(location() / file))

    assert references > 100
    assert formats <= FORMATS.keys()
