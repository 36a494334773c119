# SPDX-License-Identifier: Apache-2.0
"""Logging in and out."""

from __future__ import annotations

from keepstone.control import logins, people
from keepstone.portal.rendering import link
from keepstone.portal.visit import Answer, Page, Redirect, Views, Visit

__all__ = ["views"]

views = Views()


@views("GET", "/login")
def form(visit: Visit) -> Answer:
    """Who are you?"""
    return Page("login.html", {"wrong": "", "to": visit.text("to")})


@views("POST", "/login")
def enter(visit: Visit) -> Answer:
    """`Unauthenticated`."""
    who = people.log_in(visit.plane, visit.text("name").strip(), visit.text("password"))
    to = visit.text("to")
    return Redirect(to if to.startswith(link("/")) else link("/"), login=logins.begin(visit.plane, who))


@views("POST", "/logout")
def leave(visit: Visit) -> Answer:
    """Of this browser."""
    logins.end(visit.plane, visit.login)
    return Redirect(link("/login"), login="")
