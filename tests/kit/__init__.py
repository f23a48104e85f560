"""What tests are built with: an in-memory wire, scripted backends, real processes, builders."""
