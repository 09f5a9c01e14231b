"""What the programs share that answer requests with the references."""

import os
import re
import sys
from pathlib import Path

import golden  # before any reference: it says how they are to run

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "foreign"))
import request as protocol  # noqa: E402

Unsupported = protocol.Unsupported
SHORT = {"F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16"}


def write(path, meta, tensors):
    golden.write_safetensors(Path(path), tensors, meta)


def serve(**kinds):
    """`kinds`: for each kind of request a function that gives the tensors of an answer."""

    def backend(request):
        try:
            return {"format": "bitstep-answer/1"}, kinds[request.kind](request)
        except Unsupported:
            raise
        except Exception as e:  # what the reference refuses is not a run of it
            says = re.sub(r"torch\.Size\(\[.*?\]\)", "…", str(e)).replace("\n", " ")  # alike for all shapes
            raise Unsupported(f"the reference says {type(e).__name__}: {says}") from e

    # LAPACK prints what it doesn't like.
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    protocol.write = write
    # What a case says of packages takes longer than the run.
    golden.distributions, golden.path_of = lambda _: [], lambda _: ""
    protocol.serve(backend)
