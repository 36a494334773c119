# SPDX-License-Identifier: Apache-2.0
"""Operations that clients wait for: over when all of their jobs are."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from keepstone.catalogue import jobs
from keepstone.control import operations
from keepstone.control.plane import Plane

pytestmark = pytest.mark.service


def test_one_is_over_with_all_of_its_jobs(plane: Plane) -> None:
    """A look at the hypervisors of a vault is a job of the service's, and one of each agent that has some."""
    with plane.change() as change:
        made = [plane.queue.enqueue(change.connection, "Nothing", {}, vault=plane.new_id()) for _ in range(3)]
        operation = operations.record(change, None, job=made[0], beside=made[1:], wait=True)

    def status() -> str:
        with plane.look() as connection:
            return operations.find(connection, str(operation.id), None).status

    said = []
    for job in made:
        said.append(status())
        with plane.database.change() as connection:
            connection.execute(
                sa.update(jobs).where(jobs.c.id == job).values(status="Completed", ended=plane.env.utc())
            )
    assert said == ["InProgress"] * 3
    assert status() == "Succeeded"
