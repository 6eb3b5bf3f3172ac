"""The search of training settings that `instrument` makes: what its rules ask."""

from bpgo.config.search import SEARCH, load_search


@cache
def search():
    """The configuration's search, checked before any job."""
    try:
        return load_search(search_file(), configfiles_of(ROOT), GIVEN)
    except UserError as error:
        fail(error)


def search_file():
    """Where it is: `searches` may have one of the configuration's own name."""
    first = configfiles_of(ROOT)[0]
    own = first.parent / "searches" / first.name
    return own if own.is_file() else first.parent / SEARCH


def candidate_digest(wildcards):
    return search().digest(wildcards.candidate, int(wildcards.seed))
