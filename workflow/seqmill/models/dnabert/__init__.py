"""DNABERT-2 and DNABERT-S: post-norm transformers over byte-pair tokens of DNA, with linear attention biases."""
