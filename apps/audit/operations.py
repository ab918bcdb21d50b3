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


class OnPostgres(Operation):
    """A statement of PostgreSQL's own, and the one that undoes it; elsewhere nothing."""

    reduces_to_sql = True
    reversible = True

    def __init__(self, statement: str, undo: str) -> None:
        self.statement = statement
        self.undo = undo

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Nothing that Django's state knows of changes."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Run the statement."""
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(self.statement, params=None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Undo it."""
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(self.undo, params=None)

    def describe(self) -> str:
        """Say it in `sqlmigrate` and `migrate --plan`."""
        return f"On PostgreSQL: {self.statement.partition(' ON ')[0]}"


_POSTGRES_FUNCTION = f"""
CREATE OR REPLACE FUNCTION lcp_refuse_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('{RETENTION_SETTING}', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$
"""
