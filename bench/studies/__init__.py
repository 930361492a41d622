"""Experiments on real data, each a command: `python -m bench.studies.digits`, `python -m bench.studies NAME`.

What these names mean in every study is said here and not again:

    this         a run (`results`): its settings, out, the folder of results, and tick, called after each step
    seed         of everything random; every draw has its stream from `ref.philox.stream`
    steps, batch, count      ints: training steps, examples a step, samples (a multiple of 10)
    train_steps  of the net that several studies share
    params       the tree of a net's parameters
    images, labels           (N, 784) in [-1, 1], and (N,) ints
    x0, eps, xt, x           (B, pixels): data, noise, and what is between
    abar         (T + 1,), the signal that is left
    rows         dicts: the lines of the study's CSV

Papers
    [Analytic]  Bao, Li, Zhu, Zhang, "Analytic-DPM: an Analytic Estimate of the Optimal Reverse Variance in Diffusion
                Probabilistic Models", 2022
    [CFG]       Ho, Salimans, "Classifier-Free Diffusion Guidance", 2022
    [CM]        Song, Dhariwal, Chen, Sutskever, "Consistency Models", 2023
    [DDIM]      Song, Meng, Ermon, "Denoising Diffusion Implicit Models", 2021
    [DDPM]      Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models", 2020
    [DSM]       Vincent, "A Connection Between Score Matching and Denoising Autoencoders", 2011
    [EDM]       Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022
    [FID]       Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017
    [GAN]       Goodfellow et al., "Generative Adversarial Nets", 2014
    [iCT]       Song, Dhariwal, "Improved Techniques for Training Consistency Models", 2024
    [iDDPM]     Nichol, Dhariwal, "Improved Denoising Diffusion Probabilistic Models", 2021
    [Imagen]    Saharia et al., "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding", 2022
    [IWAE]      Burda, Grosse, Salakhutdinov, "Importance Weighted Autoencoders", 2016
    [ODE]       Zheng, Lu, Chen, Zhu, "Improved Techniques for Maximum Likelihood Estimation for Diffusion ODEs", 2023
    [PR]        Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019
    [R1]        Mescheder, Geiger, Nowozin, "Which Training Methods for GANs do actually Converge?", 2018
    [RF]        Liu et al., "Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow", 2023
    [SDE]       Song et al., "Score-Based Generative Modeling through Stochastic Differential Equations", 2021
    [Towards]   Arjovsky, Bottou, "Towards Principled Methods for Training Generative Adversarial Networks", 2017
    [VAE]       Kingma, Welling, "Auto-Encoding Variational Bayes", 2014
    [WGAN-GP]   Gulrajani et al., "Improved Training of Wasserstein GANs", 2017
    [ZSNR]      Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024
"""
