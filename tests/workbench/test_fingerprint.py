"""A room's code has changed where it computes otherwise, and not where a comment says more."""

from labkit.workbench import fingerprint

SOURCE = '''"""Head."""

import math


def f(x: float) -> float:
    """Doc.

    Args:
        x: a number.
    """
    y = """kept: a value"""  # why
    # a line of its own
    return math.sqrt(x)  
'''


def test_words_do_not_count():
    other = SOURCE.replace("Head.", "Another\n\nhead.").replace("x: a number.", "x: one.\n        more.")
    other = other.replace("    # a line of its own\n", "\n\n").replace("(x)  \n", "(x)\n")
    assert fingerprint.of_source(other) == fingerprint.of_source(SOURCE)
    assert "Doc" not in fingerprint.of_source(SOURCE)
    assert "kept: a value" in fingerprint.of_source(SOURCE)


def test_code_does():
    for old, new in (("sqrt", "exp"), ("kept", "left"), ("import math\n", ""), ("y =", "z =")):
        assert fingerprint.of_source(SOURCE.replace(old, new)) != fingerprint.of_source(SOURCE), old


def test_a_class_and_a_branch_lose_their_docstrings():
    doc = '"""Doc."""'
    source = (
        f"class A:\n    {doc}\n    n = 1\n    if n:\n        def f(self):\n            {doc}\n            return 2\n"
    )
    bare = "class A:\n    n = 1\n    if n:\n        def f(self):\n            return 2"
    assert fingerprint.of_source(source) == bare


def test_a_room_is_its_method_and_its_experiment(tmp_path):
    for name in ("method/a.py", "experiment/b.py", "experiment/claims.py", "teaching/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    before = fingerprint.of_room(tmp_path)
    for name, counts in (("teaching/c.py", False), ("experiment/claims.py", False), ("method/a.py", True)):
        (tmp_path / name).write_text("x = 2\n")
        assert (fingerprint.of_room(tmp_path) != before) is counts, name
    (tmp_path / "method/a.py").rename(tmp_path / "method/d.py")
    (tmp_path / "method/d.py").write_text("x = 1\n")
    assert fingerprint.of_room(tmp_path) != before
