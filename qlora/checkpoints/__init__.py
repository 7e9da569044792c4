"""Readers of the public checkpoints that a model is put together from.

Contract: every reader checks what it is given (names, shapes, configuration) and raises
`lite.errors.BadInput` with one sentence; none of them runs code from a file, and tensors are read
only when asked for. Nothing is imported here, so that a program pays for the readers it uses.
"""
