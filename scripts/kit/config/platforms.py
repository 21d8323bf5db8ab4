"""The platforms a run can have, by the names that configuration, detection and receipts share.

Standard library only, for Python 3.9 and later.
"""

PLATFORMS = ("h100", "cuda", "m4", "cpu")
CUDA_PLATFORMS = ("h100", "cuda")
