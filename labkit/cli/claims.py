"""`labkit claims`."""

import json

from labkit.cli.options import AnySlug, AsJson, rooms
from labkit.cli.output import print_ledger


def claims(slug: AnySlug = "", json_: AsJson = False) -> None:
    """The ledger: every statement of the abstracts, what was measured, whether it holds."""
    verdicts = [verdict for paper in rooms(slug) for verdict in paper.verdicts()]
    if json_:
        print(json.dumps([verdict.as_json() for verdict in verdicts], indent=1))
    else:
        print_ledger(verdicts)
