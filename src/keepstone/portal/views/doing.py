# SPDX-License-Identifier: Apache-2.0
"""The pages of actions: what is to be given, what it would take with it, its equivalents; and doing it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from urllib.parse import parse_qsl, unquote, urlsplit

from keepstone.control import logins
from keepstone.errors import InvalidPolicy, InvalidRequest, KeepstoneError
from keepstone.portal.actions.action import Action, Plan, equivalents
from keepstone.portal.actions.known import ACTIONS
from keepstone.portal.api import Reply
from keepstone.portal.places import name_of, trail
from keepstone.portal.rendering import link
from keepstone.portal.speech import _
from keepstone.portal.visit import Answer, Download, File, Page, Redirect, Views, Visit

__all__ = ["views"]

views = Views()


def show(action: Action, visit: Visit) -> Answer:
    """The form. What is wrong with what was given is said where the equivalents would be."""
    fields = action.fields(visit)
    plan, wrong = None, ""
    try:
        plan = action.plan(visit)
    except (InvalidRequest, InvalidPolicy) as error:
        wrong = str(error)
    may = plan is None or visit.client.allows(plan.request)
    shown = {
        "action": action,
        "identity": visit.text("id"),
        "where": trail(visit.text("id")),
        "fields": fields,
        "values": {one.name: visit.texts(one.name) for one in fields},
        "asked": bool(visit.texts("once")),
        "plan": plan,
        "wrong": wrong,
        "may": may,
        "equivalents": [] if plan is None else equivalents(plan, visit.client.base),
        "once": visit.text("once") or logins.random_text(visit.plane),
        "to": _to(visit),
        "failed": "",
    }
    return Page(action.template, {**shown, **action.shows(visit)}, part="plan")


def do(action: Action, visit: Visit) -> Answer:
    """Do it, once for each form; and the page that shows what came of it. What the operation refuses is said above the
    form, with what was given in it."""
    once = visit.needed("once")
    earlier = logins.submit(visit.plane, visit.client.who, once)
    if earlier is not None:
        return Redirect(earlier or link("/jobs"), notice="" if earlier else "What you sent is being done.")
    outcome = None
    try:
        plan = action.plan(visit)
        if plan.unsure and visit.text("sure") != plan.unsure:
            raise InvalidRequest(_("say first that you want this: %(unsure)s", unsure=plan.unsure), target="sure")
        for request in plan.before:
            visit.client.send(request)
        reply = visit.client.send(plan.request)
        if plan.file is not None:  # and the form may be sent again
            return Download(File(*plan.file(reply)))
        outcome = _to(visit) or _job(visit, plan, reply) or plan.then
        if plan.once is not None:
            told = {"title": _(action.title), "told": plan.once(reply), "then": outcome, "notice": plan.notice}
            return Page("once.html", told)
        login = logins.begin(visit.plane, visit.client.who) if plan.renews else None
        return Redirect(outcome, notice=plan.notice, login=login)
    except KeepstoneError as error:
        page = show(action, visit)
        assert isinstance(page, Page)
        failed = {"failed": str(error), "once": logins.random_text(visit.plane)}
        return Page(page.template, {**page.shown, **failed}, error.status, page.part)
    finally:
        logins.finish(visit.plane, once, outcome)


def _to(visit: Visit) -> str:
    """The page of the portal that asked for the action; empty where none did."""
    to = visit.text("to")
    return to if to.startswith(link("/")) else ""


def _job(visit: Visit, plan: Plan, reply: Reply) -> str:
    """The page of the job that does it; empty where none does."""
    address = next((value for key, value in reply.headers.items() if key.casefold() == "azure-asyncoperation"), "")
    if not address:
        return ""
    parts = urlsplit(address)
    told = visit.client.get(unquote(parts.path), **{k: v for k, v in parse_qsl(parts.query) if k != "api-version"})
    job = (told.get("properties") or {}).get("jobId")
    if job is None:
        return ""
    return link("/job", id=f"{name_of(plan.request.path).vault_id}/backupJobs/{job}")


def _register(verb: str, function: Callable[[Action, Visit], Answer]) -> None:
    for action in ACTIONS.values():
        views(verb, f"/do/{action.name}")(partial(function, action))


_register("GET", show)
_register("POST", do)
