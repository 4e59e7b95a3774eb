"""Questions that a finished result answers: which sequences are alike, and what a linear probe finds in the vectors."""
