"""Claims read what the experiments write: effects of a hand-made result."""

from labkit.papers.bertfused.experiment.claims import CLAIMS

BY_KEY = {claim.key: claim for claim in CLAIMS}


def arms(**bleu):
    return {
        "arms": {
            name.replace("_", "-"): {
                "tests": {"seen": {"bleu": 90.0, "pronouns": 0.1}, "unseen": {"bleu": b, "pronouns": b / 100}}
            }
            for name, b in bleu.items()
        }
    }


def effects(**result):
    measured = {key: claim.measure(result) for key, claim in BY_KEY.items()}
    return {key: round(value, 6) for key, value in measured.items() if value is not None}


def test_sentences():
    sentence_arms = arms(plain=10.0, fused=60.0, random=12.0)
    assert effects(sentences=sentence_arms) == {
        "fusion-brings-knowledge": 50, "fusion-costs-nothing": 0, "knowledge-not-capacity": 48,
    }  # fmt: skip


def test_the_better_rival_counts():
    sentence_arms = arms(fused=60.0, encoder_only=61.0, decoder_only=40.0, bert_input=50.0, bert_encoder=55.0)
    assert effects(sentences=sentence_arms) == {
        "each-layer-of-both-sides": -1, "embedding-beats-fine-tuning": -5, "fusion-beats-both": 5,
    }  # fmt: skip


def test_other_settings():
    documents = arms(plain=30.0, context=40.0, fused=35.0, document=95.0)
    documents["arms"]["document"]["tests"]["seen"]["pronouns"] = 1.0
    semi = arms(supervised=8.0, back_translation=9.0, fused=44.0)
    semi["arms"]["supervised"]["tests"]["seen"]["bleu"] = 77.0
    measured = effects(documents=documents, unsupervised=arms(plain=5.0, fused=9.0), **{"semi-supervised": semi})
    assert measured == {
        "document-level": 0.9, "document-level-knowledge": 0.55, "semi-supervised": 35, "back-translation-helps": 13,
        "unsupervised": 4,
    }  # fmt: skip


def test_what_needs_other_scales_is_not_measured_here():
    """A lesson's result has no test of that name."""
    assert {claim.key for claim in CLAIMS if claim.scale != "lesson"} == {"multi30k", "iwslt14", "iwslt14-documents"}
    full = {"arms": {name: {"tests": {"test": {"bleu": b}}} for name, b in (("plain", 28.6), ("fused", 30.4))}}
    assert BY_KEY["iwslt14"].measure({"sentences": full}) == 30.4 - 28.6
