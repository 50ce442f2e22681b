"""The composition root: the only file that knows every part.

`assemble` makes the parts of a server and puts them together; app.py opens and closes what it
gives. Nothing else is done here.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy import estimate
from proxy.access import Access
from proxy.api import archive_json, finetune, otlp
from proxy.api.answers import errors
from proxy.api.archive import Archive, Format
from proxy.api.bodies import Bodies
from proxy.api.conversation import Conversations
from proxy.api.eraser import Eraser
from proxy.api.erasing import Erasing
from proxy.api.events import Events
from proxy.api.exporting import Exporter
from proxy.api.granting import Granting
from proxy.api.health import Health
from proxy.api.hubs import Hubs
from proxy.api.ingest import Ingest, end_overdue_forever
from proxy.api.keys import Keys
from proxy.api.mcp import Mcp
from proxy.api.pace import Pace
from proxy.api.provider_keys import ProviderKeys
from proxy.api.retention import Retention
from proxy.api.routes import routes
from proxy.api.search import Search
from proxy.api.sessions import Sessions
from proxy.api.traces import Traces
from proxy.budget import Budgets
from proxy.call_log import log_calls
from proxy.capture import Budget
from proxy.config import Config
from proxy.config_values import is_loopback
from proxy.forward import Forwarder
from proxy.guard import Guard
from proxy.handing import HandedReader
from proxy.keyring import Keyring
from proxy.limits import RateLimits
from proxy.listen import CannotListen
from proxy.outcomes import Ended
from proxy.pricing import Prices
from proxy.recorder import Recorder
from proxy.routes import add_routes
from proxy.sealing import key_file_of
from proxy.sections import RetentionConfig
from proxy.send import Sender
from proxy.settle import Settler
from proxy.tasks import spawn
from proxy.ui import export
from proxy.ui.frame import Frame, Static
from proxy.ui.lists import Lists
from proxy.ui.marks import MarksPage
from proxy.ui.pictures import Pictures
from proxy.ui.routes import pages
from proxy.ui.session import SessionPage
from proxy.ui.settings import SettingsPage
from proxy.ui.sign_in import SignInPages
from proxy.ui.trace import TracePage
from proxy.upstream import Upstream
from proxy.vault import Vault
from storage import api_keys, budgets, forget, provider_keys
from storage.database import Database
from storage.opening import peer_at

if TYPE_CHECKING:
    from proxy.api.replicas import Replicas

# How long calls that were cut have to leave their record.
CUT_S: Final = 1.0
_NEEDS_KEYS: Final = (
    "cannot listen on {host} without keys, since other machines reach it and whoever does could"
    " spend your provider's money: make a key first (traceway keys create --name NAME --scope"
    ' admin), or set mode = "keys" in [auth]'
)

_log = logging.getLogger("traceway")


@dataclass(frozen=True, slots=True)
class Assembled:
    """A server that is ready to be opened, and the parts of it that others hold."""

    app: web.Application
    recorder: Recorder
    keyring: Keyring
    eraser: Eraser
    forwarder: Forwarder


async def assemble(
    config: Config,
    database: Database,
    held: Budget,
    refuse_while_stopping: Middleware,
    *,
    private: bool,
) -> Assembled:
    """Put a server together; what fails leaves nothing behind.

    `held` bounds what requests hold that are whole here. `private`: it is for one command alone.

    Raises:
        BadKey: a provider key of the environment cannot be one.
        CannotListen: other machines could call, and nobody needs a key.
        KeyFileError: the stored provider keys cannot be opened.
        StorageError: the calls that a dead process left cannot be ended.
    """
    url = config.database.url
    key_file = key_file_of(config.auth.key_file, None if url else config.database.path)
    vault = Vault(os.environ, config.upstreams, key_file)
    budget = Budget(config.recording.memory_bytes)
    prices = Prices(config.prices)
    if not private:
        prices.warm()
        estimate.warm()
    settler = Settler(
        prices, infer=config.sessions.infer, keep_raw_streams=config.recording.keep_raw_streams
    )
    recorder = Recorder(database, settler, budget, config.recording.durability)
    async with contextlib.AsyncExitStack() as undone:
        undone.push_async_callback(recorder.close)
        owner = os.urandom(8)
        if not url:  # nobody else has the database
            interrupted = await recorder.write(lambda tx: forget.interrupt_running(tx, owner))
            if interrupted:
                _log.warning("%d calls of a process that died are marked interrupted", interrupted)
            recorder.reclaim_left()
        keyring = Keyring(config.auth.mode, await recorder.write(api_keys.grants, ()))
        if not (private or keyring.keys_are_on or is_loopback(config.server.host)):
            raise CannotListen(_NEEDS_KEYS.format(host=config.server.host))
        vault.load(await recorder.write(provider_keys.sealed_keys, ()), keyring.number)
        senders = _senders(config, held)
        limits = RateLimits(config.limits.calls_per_minute)
        forwarder = Forwarder(
            config,
            senders,
            recorder,
            budget,
            owner,
            vault,
            limits,
            _spending(config, prices, recorder),
        )
        hubs = Hubs(database, forwarder.in_flight)
        recorder.commits.after_commit = hubs.told
        replicas = None
        if url:
            replicas = _replicas(url, owner, database, recorder, keyring, vault, hubs, private)
            recorder.commits.after_commit = replicas.after_commit
            await replicas.join()
        undone.pop_all()

    def leads() -> bool:
        """Tell whether this process does what of those that share the database only one does.

        A command has its application for a moment: it leads where no server does.
        """
        return replicas is None or replicas.leads()

    pace = Pace(recorder, leads)
    # A command that has the application to itself erases what it is asked to, no more.
    retention = Retention(RetentionConfig() if private else config.retention, database, pace)
    eraser = Eraser(database, recorder, retention, pace)
    health = Health(
        database,
        recorder,
        budget,
        forwarder.in_flight,
        hubs,
        limits,
        config,
        retention,
        replicas,
        eraser.reasons,
    )
    granting = Granting(keyring, recorder)
    access = Access(keyring, granting.note_use, lambda *denied: sign_in.refused(*denied))
    erasing = Erasing(database, recorder, eraser.wake)
    sessions, traces = Sessions(database, recorder, erasing), Traces(database, recorder, erasing)
    conversations = Conversations(database)
    reader, figures = HandedReader(prices), health.figures
    ingest = Ingest(recorder, reader, config.ingest.max_body_bytes, figures.ingested)
    app = web.Application(
        middlewares=[
            otlp.statuses,
            Guard(
                [*config.server.allowed_hosts, config.server.host], config.server.allowed_origins
            ).middleware,
            refuse_while_stopping,
            access.middleware,
            errors,
        ]
    )
    static = Static()
    frame = Frame(app, static, health.reasons, keyring)
    keys, providers = Keys(granting), ProviderKeys(vault, recorder, config.upstreams)
    sign_in = SignInPages(frame, access, granting)
    if replicas is not None:
        access.tickets, access.look_again = replicas.tickets, replicas.look_again
        granting.changed = providers.changed = replicas.granted
    needs = add_routes(
        app,
        [
            *routes(
                forwarder,
                sessions,
                traces,
                Bodies(database),
                conversations,
                Events(hubs, access),
                Search(database),
                health,
                keys,
                providers,
                ingest,
                otlp.Otlp(ingest),
                Mcp(database, sessions, traces, conversations),
                Archive(database, recorder, _formats(database, frame, static, conversations)),
                erasing,
            ),
            *pages(
                frame,
                static,
                Lists(frame, sessions, traces, database),
                SessionPage(frame, conversations, database),
                MarksPage(frame, sessions, database),
                TracePage(frame, database),
                Pictures(conversations),
                sign_in,
                SettingsPage(frame, keyring, keys, providers, sign_in),
            ),
        ],
    )
    access.guard(app, needs)

    def after_ends(calls: Sequence[Ended]) -> None:
        figures.ended(calls)
        if config.server.log_calls:
            log_calls(calls)

    recorder.after_ends = after_ends
    recorder.commits.after_seconds = figures.committed
    work: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
        "checkpoints": forwarder.checkpoint_forever,
        "pruning of events": lambda: hubs.prune_forever(recorder, leads),
        "erasing": eraser.run,
        "ends of what was left open": lambda: end_overdue_forever(
            recorder, config.ingest.open_timeout_s, leads
        ),
    }
    if config.export.otlp_url and not private:
        exporter = Exporter(
            config.export,
            config.egress,
            database,
            recorder,
            lambda number: project.name if (project := keyring.project(number)) else "",
            figures.exported,
            leads,
        )
        work["export"] = exporter.run

    async def life(_: web.Application) -> AsyncIterator[None]:
        background = [spawn(begin(), name) for name, begin in work.items()]
        if replicas is not None:
            background += replicas.begin()
        yield
        for task in background:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CUT_S):
                await forwarder.idle.wait()
        for sender in senders.values():
            sender.upstream.close()
        await recorder.close()
        if replicas is not None:
            await replicas.leave()

    async def end_events(_: web.Application) -> None:
        hubs.close()

    app.cleanup_ctx.append(life)
    app.on_shutdown.append(end_events)
    return Assembled(app, recorder, keyring, eraser, forwarder)


def _senders(config: Config, held: Budget) -> dict[str, Sender]:
    return {
        name: Sender(
            Upstream(name, upstream, config.egress.hop(upstream.url)),
            config.server.max_request_bytes,
            held,
        )
        for name, upstream in config.upstreams.items()
    }


def _spending(config: Config, prices: Prices, recorder: Recorder) -> Budgets:
    return Budgets(
        prices,
        config.limits,
        lambda asked: recorder.change(lambda tx: budgets.reserve(tx, asked), (asked.project_id,)),
        lambda call: recorder.change(lambda tx: budgets.session_of(tx, call), call[:1]),
        config.server.max_request_bytes,
    )


def _replicas(
    url: str,
    owner: bytes,
    database: Database,
    recorder: Recorder,
    keyring: Keyring,
    vault: Vault,
    hubs: Hubs,
    is_command: bool,
) -> "Replicas":
    from proxy.api.replicas import Replicas  # with PostgreSQL's client, which few have

    peer = peer_at(url, owner)
    return Replicas(peer, database, recorder, keyring, vault, hubs, is_command=is_command)


def _formats(
    database: Database, frame: Frame, static: Static, conversations: Conversations
) -> dict[str, Format]:
    """Give the formats in which sessions are exported, beside the archive."""
    document = archive_json.JsonExport(database)
    page = export.HtmlExport(frame, static, conversations, database)
    lines = finetune.FineTune(database)
    return {
        "json": Format(media_type=archive_json.MEDIA_TYPE, suffix=".json", pieces=document.pieces),
        "html": Format(media_type=export.MEDIA_TYPE, suffix=export.SUFFIX, pieces=page.pieces),
        "finetune": Format(
            media_type=finetune.MEDIA_TYPE,
            suffix=finetune.SUFFIX,
            pieces=lines.pieces,
            headers=lines.headers,
        ),
    }
