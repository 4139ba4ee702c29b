"""Every row of the field's table names a test that exists."""

import pytest

from tests.field.inputs import DIRECTIONS, REFUSED, USED
from tests.field.rows import ROWS, names_of


@pytest.mark.parametrize("number", ROWS)
def test_a_row_is_shown_by_a_test(number):
    file, _, name = ROWS[number].test.partition("::")
    assert name in names_of(file)


def test_every_input_belongs_to_a_row():
    for made in (USED, REFUSED, DIRECTIONS):
        assert {int(row.split()[0]) for row in made} <= ROWS.keys()
