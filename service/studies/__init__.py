"""Studies from any door to an answer in the archive: HTTP, C-STORE, and the durable queue between them."""
