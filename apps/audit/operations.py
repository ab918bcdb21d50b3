"""Migration operations of the audit's tables: partitions, and triggers that refuse to rewrite the past."""

from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import CreateModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

RETENTION_SETTING = "lcp.retention"
"""The PostgreSQL setting that retention turns on, for its own transaction, to drop what is archived."""


class CreatePartitionedModel(CreateModel):
    """A table partitioned by range of its UUIDv7 primary key on PostgreSQL, an ordinary one elsewhere.

    A default partition takes what no other does, so that a missing partition never costs a record.
    """

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """Create the table with its partitioning clause, and the default partition."""
        if schema_editor.connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        ordinary = schema_editor.sql_create_table
        schema_editor.sql_create_table = f"{ordinary} PARTITION BY RANGE (id)"
        try:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        finally:
            schema_editor.sql_create_table = ordinary
        table = to_state.apps.get_model(app_label, self.name)._meta.db_table
        schema_editor.execute(f'CREATE TABLE "{table}_default" PARTITION OF "{table}" DEFAULT')


class AppendOnly(Operation):
    """Triggers that refuse UPDATE and DELETE on a table, but for DELETE under the retention setting on PostgreSQL."""

    reduces_to_sql = True
    reversible = True

    def __init__(self, table: str) -> None:
        self.table = table

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Nothing that Django's state knows of changes."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Create the triggers."""
        for statement in self._statements(schema_editor.connection.vendor):
            schema_editor.execute(statement, params=None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Drop the triggers."""
        for verb in ("update", "delete"):
            on = f' ON "{self.table}"' if schema_editor.connection.vendor == "postgresql" else ""
            schema_editor.execute(f'DROP TRIGGER "{self.table}_no_{verb}"{on}')

    def describe(self) -> str:
        """Say it in `sqlmigrate` and `migrate --plan`."""
        return f"Make {self.table} append-only"

    def _statements(self, vendor: str) -> list[str]:
        if vendor == "postgresql":
            return [_POSTGRES_FUNCTION, *(self._postgres_trigger(verb) for verb in ("UPDATE", "DELETE"))]
        return [self._sqlite_trigger(verb) for verb in ("UPDATE", "DELETE")]

    def _postgres_trigger(self, verb: str) -> str:
        return (
            f'CREATE TRIGGER "{self.table}_no_{verb.lower()}" BEFORE {verb} ON "{self.table}" '
            "FOR EACH ROW EXECUTE FUNCTION lcp_refuse_rewrite()"
        )

    def _sqlite_trigger(self, verb: str) -> str:
        return (
            f'CREATE TRIGGER "{self.table}_no_{verb.lower()}" BEFORE {verb} ON "{self.table}" '
            f"BEGIN SELECT RAISE(ABORT, '{self.table} is append-only'); END"
        )


_POSTGRES_FUNCTION = f"""
CREATE OR REPLACE FUNCTION lcp_refuse_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('{RETENTION_SETTING}', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$
"""


LATE_SECONDS = 60
"""How much later than its id was made a record must be written to be marked as late."""


class MarkLate(Operation):
    """A trigger that marks each record that is written long after its id was made.

    It sees every writer, and fires for rows that are really inserted alone: a replay that finds its record there
    marks nothing. A record that comes in time costs one comparison.
    """

    reduces_to_sql = True
    reversible = True

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Nothing that Django's state knows of changes."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Create the trigger."""
        statements = _POSTGRES_LATE if schema_editor.connection.vendor == "postgresql" else (_SQLITE_LATE,)
        for statement in statements:
            schema_editor.execute(statement, params=None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Drop the trigger."""
        on = " ON audit_requestrecord" if schema_editor.connection.vendor == "postgresql" else ""
        schema_editor.execute(f"DROP TRIGGER audit_requestrecord_late{on}")

    def describe(self) -> str:
        """Say it in `sqlmigrate` and `migrate --plan`."""
        return "Mark records that are written late"


_POSTGRES_LATE = (
    """
CREATE OR REPLACE FUNCTION lcp_mark_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_laterecord (id, organization_id) VALUES (NEW.id, NEW.organization_id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$
""",
    f"""
CREATE TRIGGER audit_requestrecord_late AFTER INSERT ON audit_requestrecord FOR EACH ROW
WHEN (NEW.id < rpad(
    lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - {LATE_SECONDS * 1000}), 12, '0'), 32, '0'
)::uuid)
EXECUTE FUNCTION lcp_mark_late()
""",
)
_SQLITE_LATE = f"""
CREATE TRIGGER audit_requestrecord_late AFTER INSERT ON audit_requestrecord FOR EACH ROW
WHEN NEW.id < printf('%012x', CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER) - {LATE_SECONDS * 1000})
BEGIN
    INSERT OR IGNORE INTO audit_laterecord (id, organization_id) VALUES (NEW.id, NEW.organization_id);
END
"""


class Fenced(Operation):
    """Row-level security on PostgreSQL: whoever does not own ``table`` meets the rows of their scope alone.

    ``column`` holds the organization's id. ``of``: the column and the table of the row that a row belongs to, whose
    fence holds for it too. As SQL: ``also`` is of the scope besides; ``read`` may be read in every scope but an empty
    one; ``added`` may be added in any scope. See `apps.audit.fence`.
    """

    reduces_to_sql = True
    reversible = True

    def __init__(
        self,
        table: str,
        column: str = "organization_id",
        *,
        of: tuple[str, str] | None = None,
        also: str = "",
        read: str = "",
        added: str = "",
    ) -> None:
        self.table = table
        self.column = column
        self.of = of
        self.also = also
        self.read = read
        self.added = added

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Nothing that Django's state knows of changes."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Put up the fence."""
        if schema_editor.connection.vendor == "postgresql":
            for statement in (*_SCOPE_FUNCTIONS, *self._policies(), self._on_partitions("ENABLE")):
                schema_editor.execute(statement, params=None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Take it away."""
        if schema_editor.connection.vendor == "postgresql":
            for name in ("scope", "read", "added"):
                schema_editor.execute(f'DROP POLICY IF EXISTS "lcp_{name}" ON "{self.table}"')
            schema_editor.execute(self._on_partitions("DISABLE"), params=None)

    def describe(self) -> str:
        """Say it in `sqlmigrate` and `migrate --plan`."""
        return f"Fence the rows of {self.table} by organization"

    def _policies(self) -> list[str]:
        # What does not depend on the row stands in a SELECT of its own: it is computed once for each statement.
        mine = f"{self.column} = {ANY_OF_THE_SCOPE}"
        if self.of:
            column, owner = self.of
            mine = f'EXISTS (SELECT FROM "{owner}" AS owner WHERE owner.id = "{self.table}".{column})'
        mine = f"{mine} OR ({self.also})" if self.also else mine
        on = f'ON "{self.table}"'
        policies = [f'CREATE POLICY "lcp_scope" {on} USING ((SELECT lcp_sees_everything()) OR {mine})']
        if self.read:
            policies.append(
                f'CREATE POLICY "lcp_read" {on} FOR SELECT USING ((SELECT lcp_sees_some()) AND {self.read})'
            )
        if self.added:
            policies.append(f'CREATE POLICY "lcp_added" {on} FOR INSERT WITH CHECK ({self.added})')
        return policies

    def _on_partitions(self, verb: str) -> str:
        """Return the statement for the table and its partitions, which show nothing to who asks for them by name."""
        return _ON_PARTITIONS.replace("<table>", self.table).replace("<verb>", verb)


OF_THE_PLATFORM = "organization_id IS NULL"
"""Rows of nobody's organization, as `Fenced` takes what may be read or added."""
ANY_OF_THE_SCOPE = "ANY ((SELECT lcp_scope())::uuid[])"
"""The ids of the scope, to be compared with a column."""

_ON_PARTITIONS = """
DO $$
DECLARE name regclass;
BEGIN
    FOR name IN SELECT '"<table>"'::regclass
        UNION ALL SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = '"<table>"'::regclass
    LOOP
        EXECUTE format('ALTER TABLE %s <verb> ROW LEVEL SECURITY', name);
    END LOOP;
END $$
"""
_SCOPE_FUNCTIONS = (
    """
CREATE OR REPLACE FUNCTION lcp_sees_everything() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT current_setting('lcp.scope', true) IS NOT DISTINCT FROM '*'
$$
""",
    """
CREATE OR REPLACE FUNCTION lcp_sees_some() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT COALESCE(current_setting('lcp.scope', true), '') <> ''
$$
""",
    """
CREATE OR REPLACE FUNCTION lcp_scope() RETURNS uuid[] LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT string_to_array(NULLIF(current_setting('lcp.scope', true), '*'), ',')::uuid[]
$$
""",
)
