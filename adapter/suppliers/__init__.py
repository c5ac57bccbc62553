"""Everything specific to one supplier, and the choice of the one that is served. No other module names a supplier."""

from adapter.suppliers.cityfibre import supplier as served

__all__ = ["served"]
