# SPDX-License-Identifier: Apache-2.0
"""The service: one HTTPS port with everything behind it."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

from keepstone.control.installation import Installation
from keepstone.env import Env

__all__ = ["serve"]

_log = logging.getLogger(__name__)


def serve(root: Path, host: str, port: int) -> None:
    """Serve until a signal says to stop. The installation has begun."""
    import uvicorn

    from keepstone.arm.service import Service

    installation = Installation(Env(), root)
    plane = installation.plane()
    certificate, key = installation.certificate(["localhost", "127.0.0.1", "::1", socket.getfqdn()])
    service = Service(plane, installation.issuer(plane.place.tenant))
    config = uvicorn.Config(
        service,
        host=host,
        port=port,
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=10,
    )
    uvicorn.Server(config).run()
