# SPDX-License-Identifier: Apache-2.0
"""Where alerts are told to in tests: a real HTTP server for apprise's `json://`, and a real SMTP server for `mailto://`,
both on a free port of the loopback."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["MailServer", "Mailbox"]


class Mailbox:
    """`messages`: what came, in order: those that were taken. `status`: what it answers. While `open` is not set, it
    does not answer."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        box = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                box.open.wait(30)
                box.paths.append(self.path)
                if box.status < 300:
                    box.messages.append(body)
                self.send_response(box.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def url(self, path: str = "hook", **query: str) -> str:
        """Its address for apprise."""
        asked = "&".join(f"{key}={value}" for key, value in query.items())
        return f"json://127.0.0.1:{self.port}/{path}" + (f"?{asked}" if asked else "")

    @property
    def titles(self) -> list[str]:
        """Of what came."""
        return [message["title"] for message in self.messages]

    def close(self) -> None:
        """The end of it."""
        self.open.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Session(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as a sender needs."""

    take: Callable[[str], None]

    def handle(self) -> None:
        self._say(220, "ready")
        while line := self.rfile.readline().strip().upper():
            if line.startswith(b"QUIT"):
                return self._say(221, "bye")
            if line == b"DATA":
                self._say(354, "go on")
                lines = []
                while (text := self.rfile.readline()) != b".\r\n":
                    lines.append(text.decode())
                self.take("".join(lines))
            self._say(250, "well")
        return None

    def _say(self, code: int, text: str) -> None:
        self.wfile.write(f"{code} {text}\r\n".encode())


class MailServer:
    """`mails`: what came."""

    def __init__(self, port: int, mails: list[str]) -> None:
        self.port, self.mails = port, mails

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[MailServer]:
        """One of its own."""
        mails: list[str] = []
        handler = type("Handler", (_Session,), {"take": lambda _, mail: mails.append(mail)})
        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield cls(server.server_address[1], mails)
            finally:
                server.shutdown()
                thread.join()
