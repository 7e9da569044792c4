"""Processes that tests may kill: each is forked from one that has imported everything already."""

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["qlora.training.assembly", "export.bundle"])
