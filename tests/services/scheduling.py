"""Which process runs which tests: those of a file in one, so that what a file's fixtures start is started once.

xdist's own grouping by marks writes into what pytest 9.2 no longer reads a test's address from: every process would
start every server.
"""

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

TOGETHER = ("tests/aws/", "tests/browser/", "tests/conformance/")
"""Folders whose files share what they start."""
SLOW = ("tests/browser/", "tests/isolation/", "tests/server/", "tests/budgets/", "tests/aws/", "tests/conformance/",
        "tests/encryption/", "tests/docs/", "tests/alerts/", "tests/login/", "tests/changes/")  # fmt: skip
"""What begins first: a long file that is begun last would be waited for by all other processes."""


class ByFile(LoadScopeScheduling):
    """Gives a process all tests of a file, or of a folder, the slow ones first."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in TOGETHER if file.startswith(folder)), file)

    def _assign_work_unit(self, node: WorkerController) -> None:
        first = min(self.workqueue, key=lambda scope: (_rank(scope), -len(self.workqueue[scope])))
        self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)


def _rank(scope: str) -> int:
    return next((rank for rank, folder in enumerate(SLOW) if scope.startswith(folder)), len(SLOW))
