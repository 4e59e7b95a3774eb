"""What the README says of speed is what was measured."""

import table
from paths import REPOSITORY


def test_tables_of_speed_are_those_of_the_results():
    text = (REPOSITORY / "README.md").read_text()
    assert "| seqmill |" in text
    assert table.updated(text) == text, "run python benchmarks/table.py"
