"""The records of the operations, one file for each module of `ref`: truth, inputs, sizes of the terms, bound, benchmark."""
