# SPDX-License-Identifier: Apache-2.0
"""`keepstone agent register`, `status` and `unregister`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keepstone.cli.agent.option import agent_command
from keepstone.cli.console import Console

if TYPE_CHECKING:
    from keepstone.agent.identity import Identity
    from keepstone.agent.system import Folders

__all__ = ["register", "status", "unregister"]


@agent_command(name="register")
@click.option(
    "--credentials",
    "file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The file of `keepstone vault credentials download`; remove it afterwards.",
)
@click.option("--name", metavar="NAME", help="What this machine is called in the vault [default: its host name].")
def register(console: Console, folders: Folders, *, file: Path, name: str | None) -> None:
    """Register this machine with a vault.

    It makes a key that stays here and gets a certificate for it. The credentials are used up by that.
    """
    from keepstone.agent import system
    from keepstone.agent.identity import Credentials
    from keepstone.agent.identity import register as begin
    from keepstone.env import Env

    about = system.machine()
    facts = {"os": about.system, "cpus": about.processors}
    made: Identity = begin(Env(), folders.state, Credentials.read(file), name or about.name, facts)
    console.result(
        _plain(made), [f"this machine is {made.container} of {made.vault}", "`keepstone agent run` starts its agent"]
    )


@agent_command(name="status")
def status(console: Console, folders: Folders) -> None:
    """Show who this machine is to its vault, and whether the service lets it in."""
    from keepstone import __version__
    from keepstone.agent.identity import Identity
    from keepstone.agent.plan import Plans
    from keepstone.env import Env
    from keepstone.errors import KeepstoneError
    from keepstone.remote.calls import Broken, Calls
    from keepstone.remote.wire import Pulse, encode

    env = Env()
    identity = Identity.load(env, folders.state)
    calls = Calls(env, identity.url, identity.context, patience=0.0)
    reached = "yes"
    try:
        calls.once("pulse", [encode(Pulse(version=__version__, room=0))])
    except (Broken, KeepstoneError) as error:
        reached = f"no: {error}"
    finally:
        calls.close()
    due = [plan.name for plan in Plans(env, folders.state / "plan.json").due()]
    shown = _plain(identity) | {"let in": reached, "due": due}
    lines = [f"{name}: {value}" for name, value in shown.items() if value not in ([], "")]
    console.result(shown, lines)


@agent_command(name="unregister")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def unregister(console: Console, folders: Folders, *, yes: bool) -> None:
    """Forget who this machine is.

    Its items and points stay in the vault; `keepstone container revoke` there ends its certificate at once.
    """
    from keepstone.agent.identity import Identity
    from keepstone.env import Env

    identity = Identity.load(Env(), folders.state)
    console.confirm(f"Remove the key of {identity.container}? No backup of this machine is made then.", yes)
    identity.forget()
    console.result({"container": identity.container}, [f"{identity.container} is not registered here any more"])


def _plain(identity: Identity) -> dict[str, object]:
    until = datetime.fromtimestamp(identity.until, UTC)
    return {
        "url": identity.url,
        "vault": identity.vault,
        "container": identity.container,
        "certificate until": f"{until:%Y-%m-%d %H:%M} UTC",
    }
