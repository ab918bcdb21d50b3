"""Django's PostgreSQL backend, whose connections say in which scope they ask (`apps.audit.fence`) before they do.

A setting that is changed within a transaction is taken back with it, so what was said there is not relied upon later.
"""

from typing import Any

from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

from apps.audit import fence

_SAY = f"SELECT set_config('{fence.SETTING}', %s, false)"


class DatabaseWrapper(base.DatabaseWrapper):
    """One connection. ``SCOPE`` in its settings is the scope of one that never changes it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fixed: str | None = self.settings_dict.get("SCOPE")
        self._said: str | None = None
        self._said_within_a_transaction = False

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect. A new connection has been told nothing."""
        self._said = None
        return super().get_new_connection(conn_params)

    def init_connection_state(self) -> None:
        """Say the scope once where it is always the same."""
        super().init_connection_state()
        if self._fixed is not None:
            self.connection.execute(_SAY, [self._fixed])

    def create_cursor(self, name: str | None = None) -> Any:
        """Say the scope if it is not what was said last, and return a cursor."""
        if self._fixed is None and self._said != (wanted := fence.scope()):
            self._say(wanted)
        return super().create_cursor(name)

    def _say(self, wanted: str) -> None:
        if self.connection.info.transaction_status == TransactionStatus.INERROR:
            return  # it takes nothing but the end of the transaction, which forgets what was said
        self._said = None
        self.connection.execute(_SAY, [wanted])
        self._said, self._said_within_a_transaction = wanted, not self.connection.autocommit

    def _commit(self) -> None:
        if self._said_within_a_transaction:  # after an error that nobody noticed, COMMIT rolls back
            self._said = None
        super()._commit()  # type: ignore[misc]  # not in the stubs

    def _rollback(self) -> None:
        self._said = None
        super()._rollback()  # type: ignore[misc]  # not in the stubs

    def _savepoint_rollback(self, sid: str) -> None:
        super()._savepoint_rollback(sid)  # type: ignore[misc]  # not in the stubs
        self._said = None
