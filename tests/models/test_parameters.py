"""The table of models' numbers of parameters is that of the models."""

from __future__ import annotations

from noiseless.commands.models import counted, parameters

WRITE = (
    'write it again: python -c "import json; from noiseless.commands.models import counted;'
    " open('src/noiseless/models/parameters.json', 'w').write(json.dumps(counted(), indent=1) + chr(10))\""
)


def test_the_table_of_parameters_is_current():
    assert parameters() == counted(), WRITE
    assert list(parameters()) == list(counted()), WRITE
