"""Tests of the pretended GPU and counts made on it. The scripts for a real one, in slot/, are run by hand."""

collect_ignore_glob = ["slot/*", "pretended/*"]
