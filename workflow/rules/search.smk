"""The search of training settings that `instrument` makes: what its rules ask."""

from bpgo.config.search import SEARCH, load_search


@cache
def search():
    """The search beside the configuration, checked before any job."""
    try:
        return load_search(search_file(), configfiles_of(ROOT))
    except UserError as error:
        fail(error)


def search_file():
    """Where it is."""
    return configfiles_of(ROOT)[0].parent / SEARCH


def candidate_digest(wildcards):
    return search().digest(wildcards.candidate, int(wildcards.seed))
