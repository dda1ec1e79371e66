"""Golden cases: our code against stored results of the official code."""
