"""The encoders of protein T5s: ProtT5, ProstT5, Ankh."""
