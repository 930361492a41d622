"""Sound: spectra and their inverse, mel scales, companding, residual quantisation. `from ref.audio import stft` finds
all of them.

Everything here is float64. Sound is (B, L), in [-1, 1]. A spectrum is two real arrays, the real and the imaginary part,
on its last axis: (B, F, N, 2), with F = n // 2 + 1 frequencies and N frames. Codes are ints.
"""
from ref.audio.mel import (
    hz_to_mel, log_mel, log_mel_backward, mel_filters, mel_inverse, mel_to_hz, nonnegative_least_squares,
)  # fmt: skip
from ref.audio.mulaw import (
    mulaw_compress, mulaw_compress_backward, mulaw_decode, mulaw_encode, mulaw_expand, mulaw_expand_backward,
)  # fmt: skip
from ref.audio.quantise import (
    codebook_loss, codebook_loss_backward, commitment_loss, commitment_loss_backward, kmeans_step,
    moving_average_codebook, nearest_code, replace_dead, residual_decode, residual_decode_backward, residual_quantise,
    straight_through, straight_through_backward,
)  # fmt: skip
from ref.audio.stft import (
    griffin_lim, griffin_lim_step, hann, istft, istft_backward, magnitude, magnitude_backward, stft, stft_backward,
)  # fmt: skip
