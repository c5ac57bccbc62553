"""Ids that are derived from names."""

from uuid import UUID, uuid5

from hypothesis import given
from hypothesis import strategies as st

from adapter.core.derived import namespace


@given(root=st.uuids(), name=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_derived_id_is_a_uuid_of_version_5(root: UUID, name: str) -> None:
    assert namespace(root)(name) == str(uuid5(root, name))
