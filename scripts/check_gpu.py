"""Say what this machine is: ``kit detect``, and its functions for Python. Runs on any Python from 3.9 on."""

from __future__ import annotations

import sys

from kit.commands import start
from kit.commands.detect import check_cuda_backend, check_gpu, check_mps_backend, detect_platform

__all__ = ["check_cuda_backend", "check_gpu", "check_mps_backend", "detect_platform"]

if __name__ == "__main__":
    start("detect", sys.argv[1:])
