"""seqmill in Python: `seqmill.embed`. (`seqmill.open`, which needs no PyTorch, is in outputs/result.py.)"""
