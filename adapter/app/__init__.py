"""The composition root: from settings to a running role. Nothing else wires."""

from adapter.app.worker import load_catalogue, run_worker, worker

__all__ = ["load_catalogue", "run_worker", "worker"]
