"""How Hypothesis works in all tests: the same examples each time, or with `make fuzz` many more, and new ones."""

import os

from hypothesis import HealthCheck, settings

# The machine may be busy with other tests: a slow example is no failure.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile(
    "fuzz", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
