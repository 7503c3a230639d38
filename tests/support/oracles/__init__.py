"""Independent restatements: what code under test must agree with, written from the definitions alone."""
