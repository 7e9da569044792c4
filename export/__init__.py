"""From checkpoints to a bundle, with a proof of each step."""

import qlora  # noqa: F401  first: it sets how other libraries behave
