"""The method of M-LVC: networks, priors, and a codec that writes files.

How the parts are called:

    from labkit.papers.mlvc.method.network import Network, Settings, rate_distortion, distortion, LAMBDAS
    from labkit.papers.mlvc.method.references import References

    network = Network(Settings(width=0.25, motion="dis", predict_motion=False, refine_motion=False,
                               refine_residual=False))
    references = References.start(frames[0])            # after the I-frame; frames (batch, 3, H, W) in [0, 1]
    for x in frames[1:]:                                # H, W multiples of 64
        coded = network(x, references)                  # a PFrame: reconstruction, bits, predictions, flows, latents
        loss = rate_distortion(x, coded, lam=16).mean() # J = D(0..255) + lambda * bits per pixel
        references = references.push(coded.reconstruction, coded.flow).detach()

- Stage 1 trains `network.predict(x, references, flow).prediction`: compensation without compression.
- `flow=v` in both calls gives a flow of your own (pixels, (batch, 2, H, W)) in place of the motion search.
- `network.use(predict_motion=True, refine_motion=..., refine_residual=..., n_refs=...)` switches parts; weights stay.
- Trainable sets by module: `motion_estimation`, `motion_prediction` (MAMVP), `motion_coding` (MVD AE and its prior),
  `motion_refinement`, `compensation` (MMC), `residual_coding` + `hyperprior` + `residual_rgb`, `residual_refinement`.
- `network.train()`: additive noise; `network.eval()`: rounding, and the priors' medians are solved for. `quantization=`
  overrides. `coded.bits` holds `motion`, `residual`, `hyper` and `total`, each (batch,).
- A single reference is `n_refs=1` on the same networks: replicated frames, zero flows.
"""
