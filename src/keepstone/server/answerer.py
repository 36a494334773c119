# SPDX-License-Identifier: Apache-2.0
"""An answering process: takes connections at the server's socket and answers, until it is told to stop or its server is
gone.

`python -m keepstone.server.answerer --data DIR --listener NUMBER` is started by the server (`answerers.py`). Several of
them know nothing of one another: what they have in common is in the database, in files, or comes from the server. A
SIGTERM stops one, and lets it answer the requests that it has; a SIGINT does not.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from keepstone.env import Env
from keepstone.server import logs, parent
from keepstone.server.answerers import RENEW

__all__ = ["main"]


def answer(root: Path, listener: socket.socket, name: str) -> None:
    """Answer until the server says to stop."""
    from keepstone.agentapi.service import AgentService
    from keepstone.arm.service import Service
    from keepstone.portal import PREFIX as PORTAL
    from keepstone.portal import Portal
    from keepstone.remote.wire import PREFIX
    from keepstone.server.choices import installed
    from keepstone.server.front import Front
    from keepstone.server.https import Server
    from keepstone.server.metrics import Metrics
    from keepstone.server.passing import hand_on
    from keepstone.server.paths import ByPath
    from keepstone.server.processes import Processes

    installation = installed(Env(), root)
    plane = installation.plane()
    try:
        issuer = installation.issuer(plane.place.tenant)
        processes = partial(Processes.read, root)
        metrics = Metrics(plane, name, processes)
        service = Service(plane, issuer, metrics.answered)
        agents = AgentService(plane, installation.authority(), metrics.answered)
        portal = Portal(plane, service)
        app = ByPath(service, {PREFIX: agents, PORTAL: portal}, f"{PORTAL}/")

        def stopping() -> None:
            agents.stop()
            portal.stop()

        front = Front(app, plane, issuer, metrics, processes)
        server = Server(front, root / "tls", parent.say_ready, stopping, partial(hand_on, root))
        signal.signal(signal.SIGTERM, lambda *_: server.stop())
        signal.signal(signal.SIGINT, lambda *_: server.stop(at_once=True))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        parent.hear(lambda line: server.renew() if line == RENEW else None, server.stop)
        server.run(sockets=[listener])
    finally:
        plane.database.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Be an answerer; the exit code."""
    parser = parent.options("answerer", "Answers for a server.")
    parser.add_argument("--listener", type=int, required=True, help="the descriptor of the socket that listens")
    given = parser.parse_args(arguments)
    logs.to_stderr(given.process, given.log_level)

    def work() -> None:
        with socket.socket(fileno=given.listener) as listener:
            answer(given.data, listener, given.process)

    return parent.run("answerer", work, connections=True)


if __name__ == "__main__":
    sys.exit(main())
