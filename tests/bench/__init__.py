"""Benchmarks beside their rivals, in one run: `pytest -m bench -s tests/bench`. They print ratios and assert no time."""
