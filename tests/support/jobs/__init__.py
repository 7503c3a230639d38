"""What other processes run in tests; in modules of their own, so that a spawned process can import them."""
