"""The migration operation that ties a configuration table to the version numbers that every process watches."""

from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

PLATFORM = "00000000-0000-0000-0000-000000000000"


class BumpsConfigVersion(Operation):
    """Triggers: any change to a row of ``table`` raises the version of the scope in ``column`` (NULL: the platform's).

    A trigger and not `Model.save`, so that cascades, bulk updates and an operator's own SQL count as well.
    ``update_of`` limits which columns count for an update (a login's timestamp is no change of configuration).
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, table: str, column: str | None = "organization_id", update_of: tuple[str, ...] = ()) -> None:
        self.table = table
        self.column = column
        self.update_of = update_of

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Nothing that Django's state knows of changes."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Create one trigger for each verb and row."""
        make = self._postgres if schema_editor.connection.vendor == "postgresql" else self._sqlite
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(_POSTGRES_FUNCTION, params=None)
        for verb, row in _EVENTS:
            schema_editor.execute(make(verb, row), params=None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Drop the triggers."""
        on = f' ON "{self.table}"' if schema_editor.connection.vendor == "postgresql" else ""
        for verb, row in _EVENTS:
            schema_editor.execute(f'DROP TRIGGER "{self._name(verb, row)}"{on}')

    def describe(self) -> str:
        """Say it in `sqlmigrate` and `migrate --plan`."""
        return f"Let changes of {self.table} raise the configuration's version"

    def _name(self, verb: str, row: str) -> str:
        return f"{self.table}_bump_{verb.lower()}_{row.lower()}"

    def _event(self, verb: str) -> str:
        return f"UPDATE OF {', '.join(self.update_of)}" if verb == "UPDATE" and self.update_of else verb

    def _postgres(self, verb: str, row: str) -> str:
        # A trigger function takes literals only: the column's name travels, not its value.
        return (
            f'CREATE TRIGGER "{self._name(verb, row)}" AFTER {self._event(verb)} ON "{self.table}" FOR EACH ROW '
            f"EXECUTE FUNCTION lcp_bump_config_version('{row}', '{self.column or ''}')"
        )

    def _sqlite(self, verb: str, row: str) -> str:
        platform = PLATFORM.replace("-", "")
        scope = f"COALESCE({row}.{self.column}, '{platform}')" if self.column else f"'{platform}'"
        return (
            f'CREATE TRIGGER "{self._name(verb, row)}" AFTER {self._event(verb)} ON "{self.table}" FOR EACH ROW BEGIN '
            f"INSERT INTO orgs_configversion (scope, version) SELECT {scope}, 1 WHERE true "
            "ON CONFLICT (scope) DO UPDATE SET version = version + 1; END"
        )


class StaysWithin(Operation):
    """Triggers on PostgreSQL: a row stays with its organization, and what it names is of the same one.

    ``links``: the columns that name rows, by the table that they name. A row of the platform (no organization) may be
    named by anyone's if its table is in ``shared``. The models say the same, to people in words; this holds for what
    forgets to ask them. SQLite, which is for development, has the models' word alone.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(self, table: str, links: dict[str, str] | None = None, shared: tuple[str, ...] = ()) -> None:
        self.table = table
        self.links = links or {}
        self.shared = shared

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Nothing that Django's state knows of changes."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Create the triggers."""
        if schema_editor.connection.vendor == "postgresql":
            for statement in (_POSTGRES_STAYS, _POSTGRES_WITHIN, *self._triggers()):
                schema_editor.execute(statement, params=None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Drop the triggers."""
        if schema_editor.connection.vendor == "postgresql":
            for name in ("stays", *self.links):
                schema_editor.execute(f'DROP TRIGGER "{self.table}_{name}_within" ON "{self.table}"')

    def describe(self) -> str:
        """Say it in `sqlmigrate` and `migrate --plan`."""
        return f"Keep rows of {self.table} within their organization"

    def _triggers(self) -> list[str]:
        stays = (
            f'CREATE TRIGGER "{self.table}_stays_within" BEFORE UPDATE OF organization_id ON "{self.table}" '
            "FOR EACH ROW EXECUTE FUNCTION lcp_stays_with_its_organization()"
        )
        return [stays, *(self._link(column, named) for column, named in self.links.items())]

    def _link(self, column: str, named: str) -> str:
        platforms = "platform" if named in self.shared else ""
        return (
            f'CREATE TRIGGER "{self.table}_{column}_within" BEFORE INSERT OR UPDATE OF {column} ON "{self.table}" '
            f"FOR EACH ROW EXECUTE FUNCTION lcp_names_within_its_organization('{column}', '{named}', '{platforms}')"
        )


_EVENTS = (("INSERT", "NEW"), ("UPDATE", "OLD"), ("UPDATE", "NEW"), ("DELETE", "OLD"))

_POSTGRES_FUNCTION = """
CREATE OR REPLACE FUNCTION lcp_bump_config_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed jsonb := CASE TG_ARGV[0] WHEN 'OLD' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
BEGIN
    INSERT INTO orgs_configversion AS v (scope, version)
    VALUES (COALESCE((changed ->> TG_ARGV[1])::uuid, '00000000-0000-0000-0000-000000000000'), 1)
    ON CONFLICT (scope) DO UPDATE SET version = v.version + 1;
    RETURN NULL;
END $$
"""

_POSTGRES_STAYS = """
CREATE OR REPLACE FUNCTION lcp_stays_with_its_organization() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.organization_id IS DISTINCT FROM OLD.organization_id THEN
        RAISE EXCEPTION 'a row of % stays with its organization', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""
_POSTGRES_WITHIN = """
CREATE OR REPLACE FUNCTION lcp_names_within_its_organization() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    named uuid := (to_jsonb(NEW) ->> TG_ARGV[0])::uuid;
    fits boolean;
BEGIN
    IF named IS NULL THEN
        RETURN NEW;
    END IF;
    EXECUTE format(
        'SELECT organization_id IS NOT DISTINCT FROM $1 OR (organization_id IS NULL AND $2) FROM %I WHERE id = $3',
        TG_ARGV[1]
    ) INTO fits USING NEW.organization_id, TG_ARGV[2] = 'platform', named;
    IF fits IS NOT TRUE THEN
        RAISE EXCEPTION 'what % names is of another organization', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""
