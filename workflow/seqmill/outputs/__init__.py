"""Result files: written, verified, merged. Knows no family and no engine."""
