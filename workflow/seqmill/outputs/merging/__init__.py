"""The parts of a merge: which record is where, its values on their way, the index."""
