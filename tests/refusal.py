"""What the command line says of a user's mistake."""


def refused(outcome):
    """The one line of a refusal."""
    status, out, err = outcome
    assert status == 2
    assert out == ""
    assert err.startswith("minild: ") and err.count("\n") == 1 and err.endswith("\n")
    return err
