"""Training data: from the files that people download to rows of token ids."""
