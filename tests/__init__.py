"""The tests: unit, conformance with the published code, and the notebooks from end to end.

`check` is how they check the types and shapes that signatures state: beartype, taking an int where a float is
asked for, as Python's typing has it.
"""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
