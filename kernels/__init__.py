"""Fast kernels under the names of `ref`, one folder a backend, and what they are checked by. Importing compiles nothing."""
