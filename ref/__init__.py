"""The truth: generative models in NumPy, one numbered equation a function. Imports nothing but NumPy and itself.

Conventions
    Precision   Process math is float64, for any input; layers and networks keep the dtype of their arrays.
    Shapes      B examples first, then any data axes: images (B, C, H, W), flat ones (B, pixels).
    Time        t = 0 is data and t = T is noise. `abar` has T + 1 entries, abar[0] = 1. A step goes from t to any
                s < t.
                Flow times run the same way, from 0 (data) to 1 (noise): x_t = (1 - t) x0 + t eps, velocity eps - x0.
    Noise       sigma is a deviation, variance a variance, logvar its logarithm. Random numbers are functions of
                (seed, stream, index), `ref.philox`; the other functions draw nothing and take their noise as an
                argument.
    Guidance    uncond + w (cond - uncond); w = 1 is the plain conditional model.
    Gradients   f_backward(dout, ...) stands next to f. It takes arrays under the names that they have in f, and returns
                gradients in the order of f's arguments; those of a network's parameters come last, as a tree
                (`ref.tree`).
    Errors      A bad argument raises before anything is computed, and the message names it. No shape broadcasts
                silently.
    `np.real`   The tests differentiate f by a complex step: Im f(x + 1e-30 i) / 1e-30. So comparisons look at the real
                part, and a complex argument stays complex (`ref.shapes.float64`).

Reading order
    That of the course, `python -m ref`: sixteen pages from the three families to the checks, whose texts are
    `ref/reading/pages`. On a page each equation comes after those that it needs there.
    `python -m ref find WORDS` says where something is; `python -m ref course --out DIR` writes the pages.
"""
