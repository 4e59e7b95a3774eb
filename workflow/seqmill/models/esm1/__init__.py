"""ESM-1b and ESM-1v: ESM-2 with learned positions."""
