"""Experiments on real data, each a command: `python -m bench.studies.digits`, `python -m bench.studies NAME`.

What these names mean in every study is said here and not again:

    out          folder of the results
    progress     called with (done, total); tick: called after each step
    seed         of everything random; every draw has its stream from `ref.philox.stream`
    steps, batch, count      ints: training steps, examples a step, samples (a multiple of 10)
    params       the tree of a net's parameters
    images, labels           (N, 784) in [-1, 1], and (N,) ints
    abar         (T + 1,), the signal that is left
    rows         dicts: the lines of the study's CSV
"""
