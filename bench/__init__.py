"""Measurements: speed, memory and quality of this project's programs and of others beside them."""

import export  # noqa: F401  first: it sets how other libraries behave
