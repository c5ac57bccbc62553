"""The composition root: from settings to a running role. Nothing else wires."""

from adapter.app.page import open_page
from adapter.app.projector import projector
from adapter.app.run import run_all, run_projector, run_server, run_worker
from adapter.app.server import server
from adapter.app.start import load_catalogue
from adapter.app.worker import worker

__all__ = [
    "load_catalogue",
    "open_page",
    "projector",
    "run_all",
    "run_projector",
    "run_server",
    "run_worker",
    "server",
    "worker",
]
