"""All tests; run by trial from the root of the checkout."""
