"""What the exercises' answers rest on."""

from labkit.papers.stmc.teaching import checks


def test_who_teaches_the_pose_branch():
    assert checks.teachers_of_the_pose_branch() == {"key points' loss", "hand feature, soft crops"}
