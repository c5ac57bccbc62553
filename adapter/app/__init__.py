"""The composition root: from settings to a running role. Nothing else wires."""

from adapter.app.projector import projector, run_projector
from adapter.app.run import run_all
from adapter.app.server import run_server, server
from adapter.app.start import load_catalogue
from adapter.app.worker import run_worker, worker

__all__ = [
    "load_catalogue",
    "projector",
    "run_all",
    "run_projector",
    "run_server",
    "run_worker",
    "server",
    "worker",
]
