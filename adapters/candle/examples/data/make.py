"""Writes digits.safetensors from the digits.csv.gz that scikit-learn ships."""

import gzip
import sys

import numpy as np
from safetensors.numpy import save_file

rows = np.loadtxt(gzip.open(sys.argv[1]), delimiter=",").astype(np.uint8)
assert rows.shape == (1797, 65) and rows[:, :64].max() == 16
save_file(
    {"images": rows[:, :64].copy(), "labels": rows[:, 64].copy()},
    "digits.safetensors",
    {
        "source": "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, "
        "UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49 "
        "(its test set, as in scikit-learn)",
        "licence": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    },
)
