"""Banks: prototypes that turn embeddings into distributions, so that teachers without classes give labels.

    bank.py   a bank and its checks
    file.py   a bank <-> a safetensors file
    head.py   torch: embeddings -> distributions over the prototypes

Enters: a file, embeddings [N, D]. Leaves: float32 distributions [N, K]. May import files, console, errors and format/.
Importing this costs no torch.
"""

from __future__ import annotations

from slg_wds.banks.bank import Bank, DenseLayer
from slg_wds.banks.file import encode_bank, read_bank

__all__ = ["Bank", "DenseLayer", "encode_bank", "read_bank"]
