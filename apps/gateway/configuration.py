"""What this process knows of an organization: its keys, policies, routes and prices, as of known versions.

A copy may serve any number of requests. It is never trusted on its own: the journal compares its versions with the
database's in the transaction that admits or refuses a request, and a stale copy is dropped and read again.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, close_old_connections, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q, QuerySet

from apps.audit import fence, wires
from apps.gateway.judgement import Judgement, judgement_of
from apps.gateway.models import ModelRoute
from apps.gateway.providers.base import Endpoint
from apps.orgs import identities, jwts, keys
from apps.orgs.encryption import DecryptionError, KeysUnavailable
from apps.orgs.models import ApiKey, Organization, ProviderCredential
from apps.orgs.versions import Versions, read_versions
from apps.policies.engine.evaluate import Facts, PolicyIndex, evaluate
from apps.policies.engine.policy import Mode
from apps.policies.models import Policy as PolicyRow
from apps.policies.models import Price
from apps.policies.prices import PriceBook

logger = logging.getLogger(__name__)

T = TypeVar("T")
MAX_JUDGEMENTS = 10_000
MAX_CALLERS = 100_000
READERS = 4
VERIFIERS = 2
READ_SECONDS = 1.5
"""How long a request waits for a reading. A database that hangs must not hang every request that needs one."""
RETRY_SECONDS = 5.0
"""How long a copy is used that lacks credentials because the service of their keys did not answer."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: a key, or a token of the identity provider, and the application or user it belongs to."""

    organization_id: UUID
    organization_name: str
    application_id: UUID | None
    application_name: str
    user_id: UUID | None
    user_name: str
    api_key_id: UUID | None
    api_key_prefix: str
    pepper_id: str
    digest: str = field(repr=False)
    expires_at: datetime | None
    usable: bool
    """Neither revoked nor of an inactive application or user."""

    def owns(self, text: str, name: str) -> bool:
        """Whether ``text`` is this key, compared in constant time, or its name the digest of this whole token."""
        return name == self.digest or keys.matches(text, self.pepper_id, self.digest)

    def facts(self, model: str, moment: datetime) -> Facts:
        """Return what the policies are evaluated on."""
        return Facts(self.organization_id, self.application_id, self.user_id, self.api_key_id, model, moment)


@dataclass(frozen=True, slots=True)
class Target:
    """A provider that may serve a model, and under which name."""

    pattern: str
    endpoint: Endpoint | None
    """``None`` if its credential cannot be read: the model is known and not served."""
    upstream_model: str
    own: bool
    """Whether the route is the organization's own, which goes before the platform's."""


@dataclass(eq=False, slots=True)
class Configuration:
    """One organization's configuration at one pair of versions."""

    organization_id: UUID
    versions: Versions
    suspended: bool
    policies: PolicyIndex
    targets: tuple[Target, ...]
    prices: PriceBook
    callers: dict[str, Caller] = field(default_factory=dict)
    use_until: float = math.inf
    """By the monotonic clock. A copy holds for ever at its versions, unless something could not be read for now."""
    _judgements: dict[Facts, Judgement] = field(default_factory=dict)

    def judge(self, caller: Caller, model: str, moment: datetime) -> Judgement:
        """Evaluate the policies for a caller and a model at a moment; the same facts are judged once."""
        facts = caller.facts(model, self.policies.steady_since(moment))
        judgement = self._judgements.get(facts)
        if judgement is None:
            if len(self._judgements) >= MAX_JUDGEMENTS:
                self._judgements.clear()
            judgement = self._judgements[facts] = judgement_of(evaluate(facts, self.policies))
        return judgement


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks without a key of their own: a person of an organization who tries an application out in the admin.

    ``find`` reads from the database who that is now, as a key that is not stored; ``None`` if they may not any more.
    """

    organization_id: UUID
    find: Callable[[], ApiKey | None]


class NoOrganization(Exception):
    """A key that is valid and belongs to a person of the platform, not of an organization."""


class Configurations:
    """The copies of this process, read on a few threads of their own."""

    def __init__(self) -> None:
        self._by_organization: dict[UUID, Configuration] = {}
        # By a key's prefix, or the digest of a whole token.
        self._by_prefix: OrderedDict[str, Configuration] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Configuration | None]] = {}
        self._connections: list[BaseDatabaseWrapper] = []
        self._readers = ThreadPoolExecutor(READERS, "configuration", initializer=self._begin_reading)
        # Of their own, since the identity provider may be slow to say its keys, and readers must not wait for that.
        self._verifiers = ThreadPoolExecutor(VERIFIERS, "tokens")

    async def find(self, key: str) -> tuple[Caller, Configuration] | None:
        """Return the caller that a key's text, or a token's, belongs to, ``None`` if there is none.

        Raises `NoOrganization`, `identities.NotAdmitted`, `jwks.SigningKeysUnavailable` and, if the
        database does not answer, `django.db.DatabaseError`.
        """
        name = _name_of(key)
        if not name:
            return None
        configuration = self._by_prefix.get(name)
        if configuration is None or configuration.use_until <= time.monotonic():
            configuration = await self._load(name, key)
        if configuration is None:
            return None
        caller = configuration.callers[name]
        return (caller, configuration) if caller.owns(key, name) else None

    async def find_visitor(self, visitor: Visitor) -> tuple[Caller, Configuration] | None:
        """Return the caller that a visitor is, read anew each time. Raises what `find` raises of a database."""
        return await self.read(lambda: self._load_caller(visitor.find))

    def organization_of(self, key: str) -> UUID | None:
        """Return whose a key is, if memory holds it: whoever only knows its prefix is nobody."""
        name = _name_of(key)
        configuration = self._by_prefix.get(name)
        known = configuration is not None and configuration.callers[name].owns(key, name)
        return configuration.organization_id if configuration is not None and known else None

    async def is_current(self, configuration: Configuration) -> bool:
        """Ask the database whether a copy still holds; one that does not is dropped."""
        organization = configuration.organization_id
        current = await self.read(lambda: read_versions(connection, [organization])[organization])
        if current == configuration.versions:
            return True
        self.drop(configuration)
        return False

    def drop(self, configuration: Configuration) -> None:
        """Forget a copy that turned out to be stale."""
        if self._by_organization.get(configuration.organization_id) is configuration:
            del self._by_organization[configuration.organization_id]
        for prefix in configuration.callers:
            if self._by_prefix.get(prefix) is configuration:
                del self._by_prefix[prefix]

    async def read(self, query: Callable[[], T]) -> T:
        """Run a database query on a reader's thread; once more if its connection had died while idle.

        Raises `django.db.OperationalError` if that takes longer than `READ_SECONDS`.
        """
        reading = _Reading(query)
        answer = asyncio.get_running_loop().run_in_executor(self._readers, reading.run)
        done, _ = await asyncio.wait((answer,), timeout=READ_SECONDS)
        if not done:
            answer.cancel()
            reading.give_up()
            raise OperationalError("The database did not answer in time.")
        return answer.result()

    def close(self) -> None:
        """End the readers and their connections; what a reader still waits for is cut off."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._verifiers.shutdown(wait=False, cancel_futures=True)
        for opened in self._connections:
            wires.cut(opened)
        self._readers.shutdown(wait=True)
        for opened in self._connections:
            opened.close()

    def _begin_reading(self) -> None:
        """Note a reader's connection, so that `close` can end it: a pool offers no last word to each of its threads."""
        fence.work_across_organizations()
        own = connections[DEFAULT_DB_ALIAS]
        own.inc_thread_sharing()
        self._connections.append(own)

    async def _load(self, name: str, key: str) -> Configuration | None:
        """Read a key's configuration, once for all who wait for it: a burst after a change would read it for each.

        What is found may be older than the request that shares it; its versions are checked like those of any copy.
        That a key is unknown has no version, so whoever shared that asks for themselves.
        """
        shared = self._loading.get(key)
        if shared is not None:
            return await asyncio.shield(shared) or await self._read_by_name(name, key)
        reading = self._loading[key] = asyncio.ensure_future(self._read_by_name(name, key))
        reading.add_done_callback(lambda done: self._forget_loading(key, done))
        return await asyncio.shield(reading)

    def _forget_loading(self, key: str, done: "asyncio.Task[Configuration | None]") -> None:
        del self._loading[key]
        if not done.cancelled():
            done.exception()  # told to whoever waits; if all have left, nobody need hear of it

    async def _read_by_name(self, name: str, key: str) -> Configuration | None:
        if not jwts.is_shaped_like_one(key):
            return await self.read(lambda: self._load_by_name(name, lambda: keys.find(key)))
        try:
            claims = await asyncio.get_running_loop().run_in_executor(self._verifiers, jwts.verify, key)
        except jwts.RefusedToken:
            return None
        return await self.read(lambda: self._load_by_name(name, lambda: identities.key_of(claims)))

    def _load_by_name(self, name: str, find: Callable[[], ApiKey | None]) -> Configuration | None:
        found = self._load_caller(find)
        if found is None:
            return None
        caller, configuration = found
        self._remember(name, caller if caller.digest else replace(caller, digest=name), configuration)
        return configuration

    def _load_caller(self, find: Callable[[], ApiKey | None]) -> tuple[Caller, Configuration] | None:
        row = find()
        if row is None:
            return None
        if row.organization_id is None:
            raise NoOrganization
        organization: UUID = row.organization_id
        versions = read_versions(connection, [organization])[organization]
        configuration = self._by_organization.get(organization)
        if configuration is None or configuration.versions != versions or configuration.use_until <= time.monotonic():
            configuration = load_configuration(organization, versions)
        # The key is read after the versions: a change in between leaves the copy older than it looks, never newer.
        row = find()
        if configuration is None or row is None or row.organization_id != organization:
            return None
        return caller_of(row), configuration

    def _remember(self, prefix: str, caller: Caller, configuration: Configuration) -> None:
        configuration.callers[prefix] = caller
        self._by_organization[configuration.organization_id] = configuration
        self._by_prefix[prefix] = configuration
        while len(self._by_prefix) > MAX_CALLERS:
            oldest, holder = self._by_prefix.popitem(last=False)
            holder.callers.pop(oldest, None)


def _name_of(key: str) -> str:
    """Return under what a credential is remembered; ``""`` for what can be none."""
    return keys.prefix_of(key) or jwts.name_of(key)


def load_configuration(organization_id: UUID, versions: Versions) -> Configuration | None:
    """Read an organization's configuration; ``versions`` must have been read before. ``None`` if it is gone."""
    organization = Organization.objects.filter(id=organization_id).first()
    if organization is None:
        return None
    mine = Q(organization_id=organization_id) | Q(organization__isnull=True)
    targets = [_target(route) for route in _routes(mine)]
    is_whole = all(whole for _, whole in targets)
    policies = PolicyRow.objects.filter(mine).exclude(mode=Mode.OFF.value).defer("draft")
    return Configuration(
        organization_id=organization_id,
        versions=versions,
        suspended=organization.state != Organization.State.ACTIVE,
        policies=PolicyIndex(row.read() for row in policies),
        targets=tuple(target for target, _ in targets),
        prices=PriceBook(Price.objects.all()),
        use_until=math.inf if is_whole else time.monotonic() + RETRY_SECONDS,
    )


def _routes(mine: Q) -> "QuerySet[ModelRoute]":
    rows = ModelRoute.objects.filter(mine, is_active=True, credential__is_active=True)
    return rows.select_related("credential__data_key").order_by("priority")


class _Reading(Generic[T]):
    """A query on its way through a reader's thread."""

    def __init__(self, query: Callable[[], T]) -> None:
        self._query = query
        self._connection: BaseDatabaseWrapper | None = None
        self._given_up = False

    def run(self) -> T:
        """Run the query, on a new connection if the reader's has died."""
        close_old_connections()
        self._connection = connections[DEFAULT_DB_ALIAS]
        try:
            return self._query()
        except (OperationalError, InterfaceError):
            connection.close()
            if self._given_up:
                raise
            return self._query()
        finally:
            self._connection = None

    def give_up(self) -> None:
        """Have the reader free again for another query: nobody waits for this one."""
        self._given_up = True
        wires.cut(self._connection)


def caller_of(row: ApiKey) -> Caller:
    """Return who calls with a key of an organization. The key may be one that is not stored."""
    assert row.organization is not None
    usable = row.revoked_at is None
    if row.application is not None:
        usable = usable and row.application.is_active
    if row.user is not None:
        usable = usable and row.user.is_active
        usable = usable and (row.user.is_superuser or row.organization_id in row.user.roles())
    return Caller(
        organization_id=row.organization.id,
        organization_name=row.organization.name,
        application_id=row.application_id,
        application_name=row.application.name if row.application else "",
        user_id=row.user_id,
        user_name=row.user.username if row.user else "",
        api_key_id=row.id,
        api_key_prefix=row.prefix,
        pepper_id=row.pepper_id,
        digest=row.digest,
        expires_at=row.expires_at,
        usable=usable,
    )


def _target(route: ModelRoute) -> tuple[Target, bool]:
    """Return where a route leads, and whether that holds: ``False`` if its credential cannot be read for now."""
    endpoint, whole = _endpoint(route.credential)
    return Target(route.model, endpoint, route.upstream_model, route.organization_id is not None), whole


def _endpoint(credential: ProviderCredential) -> tuple[Endpoint | None, bool]:
    try:
        secret = credential.secret()
    except DecryptionError as error:
        logger.error("Provider credential %s is not served: %s", credential.id, error)  # noqa: TRY400
        return None, True
    except KeysUnavailable as error:
        logger.error("Provider credential %s is not served for now: %s", credential.id, error)  # noqa: TRY400
        return None, False
    url = credential.base_url or VENDOR_URLS.get(credential.provider, "")
    return Endpoint(credential.provider, url, secret), True


VENDOR_URLS = {"openai": "https://api.openai.com/v1", "simulated": "simulated://local"}
