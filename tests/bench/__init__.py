"""Benchmarks beside their rivals, in one run: `pytest -m bench -s tests/bench`. They print, and assert no time."""
