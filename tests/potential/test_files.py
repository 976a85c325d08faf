"""Numbers in potential files."""

import random

from pacehpc.potential.files import format_list, format_number
from pacehpc.yamlio import loads_yaml


def test_numbers_are_read_back_as_they_were():
    generator = random.Random(1)
    for _ in range(2000):
        x = generator.uniform(-1, 1) * 10.0 ** generator.randint(-300, 300)
        assert float(loads_yaml(format_number(x))) == x
    assert format_number(0.3) == "0.29999999999999999" and format_number(5.0) == "5"
    assert str(loads_yaml(format_number(-0.0))) == "-0.0"
    assert loads_yaml(format_list([1.0, [0.1, 2]])) == [1, [0.1, 2]]
