"""Machinery the tests share: a real broker and registry, certificates, processes, waiting."""
