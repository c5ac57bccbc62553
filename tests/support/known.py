"""The catalogue as the product has it by default, compiled once a process: that takes a fifth of a second."""

from functools import cache

from adapter import catalogue
from adapter.catalogue import Catalogue
from adapter.suppliers import served


@cache
def known() -> Catalogue:
    return catalogue.load(served())
