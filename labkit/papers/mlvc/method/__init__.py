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

And the codec, which needs trained networks in evaluation mode, one for each quality (lambda 64, 40, 24, 16 are 1 to 4):

    from labkit.papers.mlvc.method.codec import Codec

    codec = Codec({2: network})                         # or Codec.load(path), Codec.load() for the small default
    data = codec.encode(frames, quality=2, gop=12)      # uint8 RGB (height, width, 3) of any size -> bytes
    frames = codec.decode(data)                         # the same pixels on every machine
    report = codec.write(sink, frames, quality=2)       # a stream: bytes and estimated bits of every frame and stream
    for shown in codec.play(data, conceal=True): ...    # frame after frame; damage is repeated until the next I-frame
    codec.save(path)

`video_files` does it with files, `labkit codec encode|decode|info` from the command line. Who reads what from where:
`network` (floats, trained) -> `fixed_point.receiver` (the receiver's half in exact integers) and `tables` (the entropy
coder's integers) -> `frame_coder` (a frame to three streams and back) with `range_coder`; `intra` codes I-frames,
`container` lays out the file, `codec` puts it together.
"""
