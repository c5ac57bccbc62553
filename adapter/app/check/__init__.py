"""`adapter check`: whether an installation can go live, examined from the machine where it will run. Nothing is
changed; all it leaves behind is a transactional id that no worker uses.
"""

from adapter.app.check.lines import Line, Verdict
from adapter.app.check.role import Role
from adapter.app.check.steps import check

__all__ = ["Line", "Role", "Verdict", "check"]
