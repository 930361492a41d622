"""The records of the operations, a file for each module of `ref`, and what they are made of."""
