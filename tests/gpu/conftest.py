"""Scripts for a GPU, and a pretended one: run by hand, not collected with the other tests."""

collect_ignore_glob = ["slot/*", "pretended/*"]
