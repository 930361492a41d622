"""What the configs of a Stable Diffusion folder may say: defaults for keys that are left out, as diffusers and
transformers have them, and a refusal by name of what would change the math.

DEFAULTS: keys of which every value is taken. ONLY: keys of which one value is, or one out of a tuple's. FREE: keys that
change no result here. A value is of the kind of its default, and a number above 0 where that is; where it is None, a
number or None.
"""
import numpy as np

from ref.nets import unet
from ref.nets.init import UNET_BLOCKS

KINDS = tuple(kind for kinds in UNET_BLOCKS.values() for kind in kinds)

DEFAULTS = {
    "unet": dict(
        in_channels=4, out_channels=4, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, cross_attention_dim=1280,
        transformer_layers_per_block=1, use_linear_projection=False, time_cond_proj_dim=None, **unet.SETTINGS),
    "vae": dict(in_channels=3, out_channels=3, block_out_channels=(64,), layers_per_block=1, latent_channels=4,
                norm_num_groups=32, scaling_factor=0.18215, shift_factor=None, use_quant_conv=True,
                use_post_quant_conv=True, mid_block_add_attention=True, down_block_types=("DownEncoderBlock2D",),
                up_block_types=("UpDecoderBlock2D",)),
    "tiny": dict(in_channels=3, out_channels=3, decoder_block_out_channels=(64,) * 4, num_decoder_blocks=(3, 3, 3, 1),
                 latent_channels=4, upsampling_scaling_factor=2, scaling_factor=1.0, shift_factor=None),
    "text": dict(vocab_size=49408, hidden_size=512, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=8,
                 max_position_embeddings=77, hidden_act="quick_gelu", layer_norm_eps=1e-5, projection_dim=512,
                 eos_token_id=49407),
    "t5": dict(vocab_size=32128, d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8, feed_forward_proj="relu",
               relative_attention_num_buckets=32, relative_attention_max_distance=128, layer_norm_epsilon=1e-6),
    "transformer": dict(
        sample_size=128, patch_size=2, in_channels=16, out_channels=16, num_layers=18, attention_head_dim=64,
        num_attention_heads=18, joint_attention_dim=4096, pooled_projection_dim=2048, pos_embed_max_size=96,
        dual_attention_layers=(), qk_norm=None),
    "flow": dict(num_train_timesteps=1000, shift=1.0),
    "scheduler": dict(num_train_timesteps=1000, beta_start=0.0001, beta_end=0.02, beta_schedule="linear",
                      prediction_type="epsilon", timestep_spacing="linspace", steps_offset=0, set_alpha_to_one=True,
                      rescale_betas_zero_snr=False, original_inference_steps=50, timestep_scaling=10.0),
}
LEADING, LDM = dict(timestep_spacing="leading"), dict(beta_start=0.00085, beta_end=0.012)
OF_CLASS = {f"{solver}Scheduler": defaults for solvers, defaults in {  # defaults of the schedulers
    "DPMSolverMultistep DPMSolverSinglestep EulerDiscrete EulerAncestralDiscrete DEISMultistep UniPCMultistep "
    "LMSDiscrete": {},
    "DDIM DDPM DDIMParallel DDPMParallel": LEADING, "PNDM": LEADING | dict(set_alpha_to_one=False),
    "LCM TCD": LEADING | LDM | dict(beta_schedule="scaled_linear"),
    "HeunDiscrete KDPM2Discrete KDPM2AncestralDiscrete DPMSolverSDE": LDM,
}.items() for solver in solvers.split()}
OFF = dict.fromkeys(
    "use_karras_sigmas use_exponential_sigmas use_beta_sigmas use_lu_lambdas use_flow_sigmas use_dynamic_shifting "
    "thresholding".split(), (False, None))
ONLY = {
    "unet": unet.ONLY | dict(
        num_attention_heads=None, time_embedding_dim=None, time_embedding_act_fn=None, timestep_post_act=None,
        resnet_skip_time_act=False, resnet_out_scale_factor=1, encoder_hid_dim=None, num_class_embeds=None,
        cross_attention_norm=None, mid_block_only_cross_attention=None, reverse_transformer_layers_per_block=None,
        class_embeddings_concat=False, attention_type="default", projection_class_embeddings_input_dim=None,
        mid_block_type=("UNetMidBlock2DCrossAttn", None), downsample_padding=(1, 0),
        _class_name="UNet2DConditionModel"),
    "vae": dict(in_channels=3, out_channels=3, act_fn="silu", latents_mean=None, latents_std=None,
                _class_name="AutoencoderKL"),
    "tiny": dict(out_channels=3, act_fn="relu", upsample_fn="nearest", _class_name="AutoencoderTiny"),
    "text": dict(hidden_act=("quick_gelu", "gelu"), model_type="clip_text_model"),
    "t5": dict(feed_forward_proj="gated-gelu", dense_act_fn="gelu_new", is_gated_act=True, is_decoder=False,
               model_type="t5"),
    "transformer": dict(qk_norm=(None, "rms_norm"), _class_name="SD3Transformer2DModel"),
    "flow": OFF | dict(invert_sigmas=(False, None), stochastic_sampling=(False, None), shift_terminal=None,
                       _class_name="FlowMatchEulerDiscreteScheduler"),
    "scheduler": OFF | dict(
        _class_name=(None, *OF_CLASS),
        trained_betas=None, final_sigmas_type="zero", interpolation_type="linear", timestep_type="discrete",
        beta_schedule=("linear", "scaled_linear", "squaredcos_cap_v2"), sigma_min=None, sigma_max=None,
        prediction_type=("epsilon", "v_prediction", "sample"), timestep_spacing=("leading", "linspace", "trailing")),
}
LISTS = {"unet": dict(down_block_types=KINDS, up_block_types=KINDS),
         "vae": dict(down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",))}
FREE = {name: set(keys.split()) for name, keys in {
    "unet": "sample_size dropout upcast_attention addition_time_embed_dim addition_embed_type_num_heads",
    "vae": "sample_size force_upcast",
    "tiny": """
        force_upcast encoder_block_out_channels num_encoder_blocks latent_magnitude latent_shift block_out_channels""",
    "text": """
        architectures torch_dtype dtype transformers_version attention_dropout dropout
        initializer_range initializer_factor pad_token_id bos_token_id output_hidden_states return_dict
        output_attentions chunk_size_feed_forward is_encoder_decoder id2label label2id problem_type add_cross_attention
        cross_attention_hidden_size diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size is_decoder
        length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
        output_scores pruned_heads remove_invalid_values repetition_penalty return_dict_in_generate temperature
        tf_legacy_loss tie_encoder_decoder tie_word_embeddings top_k top_p torchscript typical_p use_bfloat16
        gradient_checkpointing""",
    "transformer": "caption_projection_dim",  # the weights' shapes say it
    "flow": "base_shift max_shift base_image_seq_len max_image_seq_len time_shift_type",  # of dynamic shifting
    # the caller picks the solver, and a pipeline of latents does not clip them
    "scheduler": """
        skip_prk_steps clip_sample clip_sample_range dynamic_thresholding_ratio sample_max_value solver_order
        solver_type algorithm_type lower_order_final euler_at_final lambda_min_clipped variance_type flow_shift
        time_shift_type predict_x0 disable_corrector solver_p shift_terminal""",
}.items()}
FREE["t5"] = FREE["text"] | set("""
    dropout_rate classifier_dropout decoder_start_token_id eos_token_id use_cache num_decoder_layers output_past
    n_positions task_specific_params scale_decoder_outputs""".split())


LEVELS = {"unet": "block_out_channels", "vae": "block_out_channels", "tiny": "decoder_block_out_channels"}
BY_LEVEL = {  # keys with a list of one value for each level; those of the second row may have one for all
    "down_block_types", "up_block_types", "num_decoder_blocks",
    "layers_per_block", "cross_attention_dim", "transformer_layers_per_block", "attention_head_dim",
}  # fmt: skip
DIVISORS = {"unet": ("norm_num_groups", "block_out_channels"), "vae": ("norm_num_groups", "block_out_channels"),
            "text": ("num_attention_heads", "hidden_size")}
ALSO = {"projection_dim": None, "out_channels": None, "eos_token_id": 0}  # of another kind than the default, but fine
WORDS = {bool: "true or false", str: "a text", int: "a whole number", float: "a number", tuple: "a list",
         type(None): "a number or null"}


def checked(name, config):
    """The config with its defaults. name: of DEFAULTS. config: dict, of a folder.
    Raises ValueError for a key that is unknown, and for a value that would change the math or makes no network."""
    defaults = DEFAULTS[name]
    for key, value in config.items():
        known = key in defaults or key in FREE[name] or key in ONLY[name] or key.startswith("_")
        if not known and value is not None:
            raise ValueError(f"{name}: the config has {key} = {value!r}, which is unknown here")
    for key, allowed in ONLY[name].items():
        allowed = allowed if isinstance(allowed, tuple) else (allowed,)
        if (given := config.get(key, defaults.get(key, allowed[0]))) not in allowed:
            raise _unlike(name, key, " or ".join(map(repr, allowed)), given)
    full = defaults | OF_CLASS.get(config.get("_class_name"), {})
    full |= {key: config[key] for key in defaults if key in config}
    for key, like in defaults.items():
        value, free = full[key], key in ONLY[name] or key in ALSO and full[key] == ALSO[key]
        each = name == "unet" and key in BY_LEVEL and isinstance(value, list) and not isinstance(like, tuple)
        if not free and not _fits(value, (like,) if each else like):
            above = " above 0" if isinstance(like, (int, float)) and like > 0 else ""
            raise _unlike(name, key, WORDS[type(like)] + above, value)
    for key, allowed in LISTS.get(name, {}).items():
        for kind in full[key]:
            if kind not in allowed:
                raise _unlike(name, key, f"blocks out of {', '.join(allowed)}", kind)
    _agree(name, full, config if name == "vae" else full)  # a vae has one type of blocks alone, and may not say it
    return full


def _fits(value, like):
    """Whether a value is of the kind of a default."""
    if isinstance(like, tuple):
        return isinstance(value, (list, tuple)) and len(value) >= len(like[:1]) and all(
            _fits(one, like[0] if like else 0) for one in value)
    if isinstance(like, (bool, str)) or isinstance(value, (bool, str)):
        return type(value) is type(like)
    if like is None and value is None:
        return True
    whole = isinstance(value, int) or isinstance(value, float) and not isinstance(like, int)
    return whole and abs(value) < 1e300 and (like is None or value > 0 or like == 0 <= value)


def _agree(name, full, given):
    """Raises ValueError for lists of another length than the levels, and for what does not divide channels evenly.
    given: the config whose lists count."""
    if name in LEVELS:
        for key in sorted(BY_LEVEL & given.keys()):
            value, levels = full[key], len(full[LEVELS[name]])
            if isinstance(value, (list, tuple)) and len(value) != levels:
                raise _unlike(name, key, f"{levels} values, as many as {LEVELS[name]} has,", value)
    if name in DIVISORS:
        key, of = DIVISORS[name]
        if any(n % full[key] for n in np.ravel(full[of])):
            raise _unlike(name, key, f"a divisor of {of}, {full[of]},", full[key])
    if name == "unet":
        widths, size = full["block_out_channels"], full["attention_head_dim"]
        sizes = size if isinstance(size, (list, tuple)) else [size] * len(widths)
        kinds = [*map("".join, zip(full["down_block_types"], full["up_block_types"][::-1]))]
        kinds[-1] += full["mid_block_type"] or ""
        if any("Attn" in kind and width % size for kind, width, size in zip(kinds, widths, sizes)):
            raise _unlike(name, "attention_head_dim", f"divisors of block_out_channels, {widths},", size)


def _unlike(name, key, wanted, given):
    return ValueError(f"{name}: {key}: expected {wanted} in the config, got {given!r}")
