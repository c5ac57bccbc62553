"""What is particular to a supplier, a module each, and which of them is served: no other place names one."""

from adapter.suppliers.cityfibre import supplier as served

__all__ = ["served"]
