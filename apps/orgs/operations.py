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
