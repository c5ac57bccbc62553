"""The tests. Run them with `make test`."""

import pytest

pytest.register_assert_rewrite("tests.support", "tests.faults")  # an assertion there tells its values too
